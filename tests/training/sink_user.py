"""Trains nothing and feeds a sink: two starts of a run, the second from an earlier step, as after a kill.

    python sink_user.py NAME WORKDIR

It runs in an environment of the sink's package and needs nothing else, and prints as JSON what that package kept: the
points (step, value) of every metric, the fields of the configuration, and how many runs there are.
"""

import json
import logging
import sqlite3
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medvill_jax.training import sinks
from medvill_jax.training.sinks.feed import FOLDER, Feed

CONFIG = {"steps": 6, "optimizer.learning_rate": 0.5, "model.attention": "bar", "crop": "[0.8, 1.1]"}


def lines(first: int, last: int) -> list[tuple[int, dict[str, float | None]]]:
    """What a run logs after each of these steps; every second one is evaluated."""
    found: list[tuple[int, dict[str, float | None]]] = []
    for step in range(first, last + 1):
        found.append((step, {"train/loss": 1 / step, "train/undefined": None}))
        if step % 2 == 0:
            found.append((step, {"eval/mlm_loss": 2 / step}))
    return found


def main(name: str, workdir: Path) -> None:
    """Writes and shows."""
    config = sinks.chosen(name, CONFIG).config
    first = Feed(name, workdir, config, [])
    for step, values in lines(1, 4):
        first.write(step, values)
    first.close(patience=600)
    time.sleep(1.1)  # W&B names a folder by the second, and no run starts twice in one
    # The checkpoint is of step 2; the run is resumed elsewhere with one more field.
    past = [{"step": step, **values} for step, values in lines(1, 2)]
    second = Feed(name, workdir, {**config, "log.every_steps": 1}, past)
    for step, values in lines(3, 6):
        second.write(step, values)
    second.close(patience=600)
    print(json.dumps(READERS[name](workdir / FOLDER / name)))


def _mlflow(folder: Path) -> dict[str, Any]:
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{folder.absolute()}/mlflow.db")
    [experiment] = [one for one in client.search_experiments() if one.name == sinks.PROJECT]
    runs = client.search_runs([experiment.experiment_id])
    points = {
        name: [(point.step, point.value) for point in client.get_metric_history(runs[0].info.run_id, name)]
        for name in runs[0].data.metrics
    }
    return {"points": points, "config": runs[0].data.params, "runs": len(runs), "name": runs[0].info.run_name}


def _trackio(folder: Path) -> dict[str, Any]:
    [database] = folder.glob(f"{sinks.PROJECT}*.db")
    with sqlite3.connect(database) as db:
        rows = db.execute("SELECT run_name, step, metrics FROM metrics ORDER BY step").fetchall()
        configs = [json.loads(text) for (text,) in db.execute("SELECT config FROM configs")]
    points: dict[str, list[tuple[int, float]]] = {}
    for _, step, text in rows:
        for name, value in json.loads(text).items():
            points.setdefault(name, []).append((step, value))
    config = {name: value for name, value in configs[0].items() if not name.startswith("_")}
    names = {name for name, _, _ in rows}
    return {"points": points, "config": config, "runs": len(names), "name": min(names)}


def _wandb(folder: Path) -> dict[str, Any]:
    import wandb
    from wandb.proto import wandb_internal_pb2

    wandb.teardown()  # as when the program ends: until then another process may not have written all to the file
    points: dict[str, list[tuple[int, float]]] = {}
    config: dict[str, Any] = {}
    runs, starts = set(), sorted(folder.glob("wandb/offline-run-*/*.wandb"))
    for start in starts:
        for data in _logged(start.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            if record.WhichOneof("record_type") == "run":
                runs.add(record.run.run_id)
                config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
            for item in record.history.item:
                name = item.key or "/".join(item.nested_key)
                if not name.startswith("_"):
                    points.setdefault(name, []).append((record.history.step.num, json.loads(item.value_json)))
    config = {name: value for name, value in config.items() if not name.startswith("_")}
    return {"points": points, "config": config, "runs": len(runs), "name": min(runs), "starts": len(starts)}


def _logged(content: bytes) -> Iterator[bytes]:
    """The records of a .wandb file: a header of 7 bytes, then the log format of LevelDB."""
    place, data, block, head = 7, b"", 1 << 15, 7
    while place + head <= len(content):
        if block - place % block < head:  # the rest of a block is padding
            place += block - place % block
            continue
        _, length, kind = struct.unpack_from("<IHB", content, place)
        data += content[place + head : place + head + length]
        place += head + length
        if kind in (1, 4):  # a whole record, or the last part of one
            yield data
            data = b""


READERS = {"mlflow": _mlflow, "trackio": _trackio, "wandb": _wandb}

if __name__ == "__main__":
    logging.basicConfig(stream=sys.stderr)
    main(sys.argv[1], Path(sys.argv[2]))
