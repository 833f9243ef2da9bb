"""Options of functions: each is read where it is accepted, and passed on to what also has it.

Both tests read the code of the package. What they find on purpose is listed, with the reason.
"""

import ast

from paths import ROOT

PACKAGE = ROOT / "rtdetr_lab"
TREES = {
    path.relative_to(PACKAGE).with_suffix("").as_posix(): ast.parse(path.read_text("utf8"))
    for path in sorted(PACKAGE.rglob("*.py"))
}
"""Module → its code."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def arguments(function):
    """The names of all arguments but `self`, and of those that may be left out."""
    given = function.args
    ordered = [*given.posonlyargs, *given.args]
    late = zip(given.kwonlyargs, given.kw_defaults, strict=True)
    options = ordered[len(ordered) - len(given.defaults) :] + [one for one, said in late if said]
    names = [one.arg for one in (*ordered, *given.kwonlyargs) if one.arg not in ("self", "cls")]
    return names, {one.arg for one in options if not one.arg.startswith("_")}


def fields_of(kind):
    """The same for a dataclass, from its own fields; or for the `__init__` of a class."""
    for one in kind.body:
        if isinstance(one, Function) and one.name == "__init__":
            return arguments(one)
    own = [one for one in kind.body if isinstance(one, ast.AnnAssign)]
    own = [one for one in own if "ClassVar" not in ast.unparse(one.annotation)]
    return [f.target.id for f in own], {f.target.id for f in own if f.value}


# --- read ----------------------------------------------------------------------------------------


AS_OTHERS = {
    "deployment/backends.OnnxRuntime.load(dtype)",  # single precision is its only one
    "transformers_api/config.RTDetrResNetConfig.to_lab(masks)",  # a backbone draws none
    "transformers_api/options.Options.get_text_config(decoder)",  # a detector reads no text
    "transformers_api/options.Options.get_text_config(encoder)",
    "transformers_api/outputs.Output._fixed(args)",  # it refuses what `dict` offers
    "transformers_api/outputs.Output._fixed(more)",
}
"""Options that are there because another class of the same kind, or of transformers, has them."""


def is_promise(function):
    """Whether it only says what others do: a protocol, an overload, a method of a base."""
    body = [one for one in function.body if not isinstance(one, ast.Expr)]  # docstrings and `...`
    return all(isinstance(one, ast.Raise) for one in body)


def forgotten(tree, path):
    """Yield the options, `*args` and `**more` that no line of their function reads."""
    for child in ast.iter_child_nodes(tree):
        named = isinstance(child, ast.ClassDef | Function)
        inside = f"{path}.{child.name}" if named else path
        if isinstance(child, Function) and not is_promise(child):
            rest = [one.arg for one in (child.args.vararg, child.args.kwarg) if one]
            names = [one for one in ast.walk(child) if isinstance(one, ast.Name)]
            read = {one.id for one in names if isinstance(one.ctx, ast.Load)}
            found = sorted(arguments(child)[1]) + [one for one in rest if one[0] != "_"]
            yield from (f"{inside}({name})" for name in found if name not in read)
        yield from forgotten(child, inside)


def test_every_option_is_read():
    found = {one for module, tree in TREES.items() for one in forgotten(tree, module)}
    assert found == AS_OTHERS


def test_an_option_that_is_forgotten_would_be_seen():
    text = """
def draw(image, size=3, *, title="", **more):
    return size

class Base:
    def draw(self, size=3):
        raise NotImplementedError
"""
    assert [*forgotten(ast.parse(text), "a")] == ["a.draw(title)", "a.draw(more)"]


# --- passed on -----------------------------------------------------------------------------------


ON_PURPOSE = {
    # the called has another option in mind
    "ccff.RepVggBlock.__init__ → ConvNormAct(act)",  # acts after the sum
    "checkpoints/transformers_resnet.UnpooledBlock.__init__ → ConvNormAct(act)",
    "successors/hgnetv2.HGNetV2Config.layer → ConvNormAct(act)",
    "commands/bench.Bench._parts → ceilings(rounds)",
    "commands/detect.Detect._detector → Tiling(max_iou)",
    "commands/detect.Detect.run → Report(images)",
    "ablations/study.Study.run → locked(name)",
    "images/postprocess.postprocess → masks_of(threshold)",
    "data/coco_json.CocoReader.pictures → Picture(path)",
    # it is in the model, or done, by then
    "ablations/study.Study._task → Task(loggers)",
    "commands/base.PictureCommand.detector → Detector(size)",
    "commands/base.PictureCommand.detector → device_of(model)",
    "commands/detect.Detect._detector → Detector(size)",
    "commands/evaluate.Eval.run → evaluate(device)",
    "commands/export.Export._int8 → Detector(size)",
    "deployment/engine.Engine._pixels → stretch(dtype)",
    "images/frames.Frame.of_annotations → Frame(orientation)",
    "images/predict.look_of → KeepAspect(edges)",
    "images/predict.look_of → Preprocess(size)",
    # it is refused, or the default is what is meant
    "commands/export.Export._int8 → onnx_bytes(postprocessing)",
    "deployment/precision.drift → Engine(backend)",  # the exact one is always torch
    "deployment/precision.drift → Engine(threshold)",
    "transformers_api/panoptic_annotations._ids → read_photo(where)",
    "transformers_api/rtdetr.RTDetrPreTrainedModel.forward → Call(inputs_embeds)",
}
"""Caller, and an option of the called that it has, too, and does not pass on."""


def defined(module):
    """Function or class → what it takes, for all in a module."""
    found = {}
    for one in TREES[module].body:
        if isinstance(one, Function):
            found[one.name] = arguments(one)
        elif isinstance(one, ast.ClassDef):
            found[one.name] = fields_of(one)
    return found


def kept_back(tree, path, known, own=frozenset()):
    """Yield the options that a caller has under the same name and does not pass on."""
    for child in ast.iter_child_nodes(tree):
        inside, mine = path, own
        if isinstance(child, ast.ClassDef):
            inside, mine = f"{path}.{child.name}", own | set(fields_of(child)[0])
        elif isinstance(child, Function):
            inside, mine = f"{path}.{child.name}", own | set(arguments(child)[0])
        elif isinstance(child, ast.Call) and isinstance(child.func, ast.Name):
            names, options = known.get(child.func.id, ([], set()))
            unpacked = any(isinstance(one, ast.Starred) for one in child.args)
            if not unpacked and all(one.arg for one in child.keywords):
                passed = {*names[: len(child.args)], *(one.arg for one in child.keywords)}
                left = sorted((options & own) - passed)
                yield from (f"{inside} → {child.func.id}({name})" for name in left)
        yield from kept_back(child, inside, known, mine)


def test_an_option_that_a_caller_has_too_is_passed_on():
    found = set()
    for module, tree in TREES.items():
        known = defined(module)
        for one in ast.walk(tree):
            if isinstance(one, ast.ImportFrom) and (one.module or "").startswith("rtdetr_lab."):
                home = one.module.removeprefix("rtdetr_lab.").replace(".", "/")
                there = defined(home) if home in TREES else {}
                known |= {n.asname or n.name: there[n.name] for n in one.names if n.name in there}
        found |= set(kept_back(tree, module, known))
    assert found == ON_PURPOSE
