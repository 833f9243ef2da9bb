"""Options of the command line that do not reach the function that they are for."""

WHERE = "commands/test_options_arrive.py"

OPTIONS = (
    (
        "commands/evaluate",
        "seen = partial(examine, threshold=self.threshold)",
        "seen = examine",
        "--threshold of eval does not reach the report",
        WHERE,
    ),
    (
        "commands/detect",
        ("            limits=Limits(bits=self.bits),\n"),
        "",
        "--bits of detect is ignored",
        WHERE,
    ),
    (
        "commands/export",
        "data = validation_set(found, model.metadata, self.limit)",
        "data = validation_set(found, model.metadata)",
        "--limit of an export in eight bits is ignored",
        WHERE,
    ),
    (
        "commands/sets",
        "CocoDataset(loaded[s], layout.folder, limits=limits) for s in splits",
        "CocoDataset(loaded[s], layout.folder) for s in splits",
        "--bits does not reach the data of train and eval",
        "commands/test_data_folders.py",
    ),
    (
        "commands/train_options",
        ("        min_delta=evaluating.min_delta,\n"),
        "",
        "--min-delta of train is ignored",
        WHERE,
    ),
    (
        "commands/bench",
        "times = bench_nms(rounds=self.rounds, clock=self.clock)",
        "times = bench_nms(rounds=self.rounds)",
        "--clock is ignored for the cost of NMS",
        WHERE,
    ),
    (
        "commands/bench",
        "parts = split(case, dtype, self.rounds, self.clock)",
        "parts = split(case, dtype, self.rounds)",
        "--clock is ignored for the parts",
        "deployment/test_bench.py",
    ),
)
