// Runs the model of a playground in a worker: loads it once, then answers pixels with tensors.
//
// In:  { files, base } loads; { feeds } runs, `feeds` maps names to { data, dims }.
// Out: { done, all } bytes while loading; { ready }; { answer, milliseconds }; { failed }, a sentence.

let ort = null;
let session = null;

/** The content of a gzip file; `progress` is told the number of bytes that came. */
async function unzipped(url, progress) {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url.pathname} cannot be loaded (${response.status})`);
  const counted = new TransformStream({ transform: (part, out) => {
    progress(part.byteLength);
    out.enqueue(part);
  } });
  const plain = response.body.pipeThrough(counted).pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(plain).arrayBuffer());
}

async function load({ files, base }) {
  let done = 0;
  const all = files.runtime.bytes + files.model.bytes;
  const progress = (more) => postMessage({ done: done += more, all });
  const [runtime, model] = await Promise.all([files.runtime, files.model]
    .map((file) => unzipped(new URL(file.name, base), progress)));
  ort = await import(new URL(files.script.name, base));
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmBinary = runtime.buffer;
  ort.env.logLevel = "error";
  session = await ort.InferenceSession.create(model, { executionProviders: ["wasm"] });
}

async function run({ feeds }) {
  const given = {};
  for (const [name, { data, dims }] of Object.entries(feeds)) {
    given[name] = new ort.Tensor("float32", data, dims);
  }
  const start = performance.now();
  const found = await session.run(given);
  const answer = {};
  for (const [name, { data, dims }] of Object.entries(found)) answer[name] = { data, dims };
  postMessage({ answer, milliseconds: performance.now() - start });
}

onmessage = async ({ data }) => {
  try {
    if (!data.files) return await run(data);
    await load(data);
    postMessage({ ready: true });
  } catch (error) {
    postMessage({ failed: String(error.message ?? error) });
  }
};
