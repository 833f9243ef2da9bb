/* A page without a kernel: what it contains, and an object in the place of the kernel. */

function contents() {
  const meta = JSON.parse(document.getElementById("meta").textContent);
  const text = atob(document.getElementById("data").textContent.trim());
  const bytes = Uint8Array.from(text, (c) => c.charCodeAt(0));
  return [meta, new DataView(bytes.buffer)];
}

function alone() {
  const [meta, data] = contents();
  const state = { meta, data, query: -1, layer: -1, head: -1, level: -1 };
  const model = {
    get: (name) => state[name],
    set: (name, value) => { state[name] = value; },
    save_changes: () => {},
    on: () => {},
  };
  render({ model, el: document.getElementById("explorer") });
}
