"""How many workers, on which nodes, with which files; and the parts of Ray that may be gone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llmexp.benchmark import ray_parts, sizing
from llmexp.benchmark.nodes import Node, _labels, _Row, _wanted, evenly
from llmexp.benchmark.pairs import placed
from llmexp.companion import luggage
from llmexp.config import Config, defaults, load
from llmexp.errors import ConfigError

SMALL, LARGE = Node("a" * 56, "10.0.0.1", 2, here=True), Node("b" * 56, "10.0.0.2", 16, here=False)


def config(**changes: object) -> Config:
    """A config with changes as `ray__workers=2`."""
    tree = defaults()
    tree["model"]["name"] = "m"
    tree["workload"] |= {"input_tokens": {"mean": 9}, "output_tokens": {"mean": 9}}
    tree["run"]["max_requests"] = 64
    for key, value in changes.items():
        node = tree
        *path, last = key.split("__")
        for name in path:
            node = node[name]
        node[last] = value
    return load(tree)


@pytest.mark.parametrize(
    ("changes", "cores", "nodes", "workers"),
    [
        ({"concurrency": 64}, 2, 1, 1),
        ({"concurrency": 64}, 4, 2, 2),
        ({"concurrency": 1}, 4, 2, 1),
        ({"concurrency": 4096, "run__max_requests": 9000}, 16, 2, 8),
        ({"concurrency": 4096, "run__max_requests": 9000}, 4, 2, 4),
        ({"concurrency": 600, "run__max_requests": 9000, "ray__workers": 5}, 4, 2, 5),
        ({"load__kind": "constant", "load__rate": 6000.0, "run__max_requests": 9000}, 16, 1, 3),
    ],
)
def test_as_few_workers_as_can_and_one_on_each_node(
    changes: dict[str, object], cores: int, nodes: int, workers: int
) -> None:
    assert sizing.workers_for(config(**changes), own_stream=False, cores=cores, nodes=nodes) == workers


def test_litellm_that_times_itself_takes_more_workers() -> None:
    assert sizing.workers_for(config(concurrency=64), own_stream=True, cores=16) == 8


def test_shares_sum_to_the_whole() -> None:
    for total in (0, 1, 7, 64):
        assert sum(sizing.share(total, worker, 5) or 0 for worker in range(5)) == total
    assert sizing.share(None, 0, 5) is None


def test_workers_are_spread_evenly_and_a_node_that_is_too_small_is_named() -> None:
    assert placed([SMALL, LARGE], 4) == [SMALL, LARGE, SMALL, LARGE]
    with pytest.raises(ConfigError, match=r"ray.workers: 10\.0\.0\.1 .* offers 2 CPUs and would get 3 of 6 workers"):
        placed([SMALL, LARGE], 6)


def test_what_is_chosen_fits_the_smallest_node() -> None:
    assert (evenly([SMALL]), evenly([SMALL, LARGE]), evenly([LARGE, LARGE])) == (2, 4, 32)
    told = config(concurrency=8192, run__max_requests=9000)
    workers = sizing.workers_for(told, own_stream=False, cores=evenly([SMALL, LARGE]), nodes=2)
    assert placed([SMALL, LARGE], workers) == [SMALL, LARGE, SMALL, LARGE]


def row(**more: object) -> _Row:
    """A node as Ray lists it."""
    base: _Row = {
        "NodeID": "n",
        "Alive": True,
        "NodeManagerAddress": "10.0.0.3",
        "Resources": {"CPU": 4.0, "memory": 1.0, "node:10.0.0.3": 1.0, "client": 1.0, "accelerator_type:H100": 1.0},
        "Labels": {"ray.io/node-id": "n", "pool": "load"},
    }
    return {**base, **more}  # type: ignore[typeddict-item]


def test_nodes_are_chosen_by_cpus_by_place_and_by_name() -> None:
    assert _labels(row()) == {"client", "pool", "pool=load"}
    for named in ("all", "others", "client", "pool", "pool=load"):
        assert _wanted(row(), named, own="me"), named
    assert not _wanted(row(), "others", own="n")
    assert not _wanted(row(), "pool=other", own="me")
    assert not _wanted(row(), "CPU", own="me")
    for named in ("all", "others"):
        assert not _wanted(row(Resources={"client": 1.0}), named, own="me")
    assert _wanted(row(Resources={"client": 1.0}), "client", own="me")


def test_files_travel_and_are_named_where_they_arrived(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    prompts, lengths = tmp_path / "home" / "prompts.jsonl", tmp_path / "home" / "lengths.txt"
    prompts.write_text('{"prompt": "Hi"}\n')
    (tmp_path / "photo.png").write_bytes(b"png")
    lengths.write_text("12\n13\n")
    told = config(
        workload__kind="file",
        workload__file=str(prompts),
        workload__output_tokens={"dist": "empirical", "file": str(lengths)},
        load__file=str(lengths),
    )
    files = luggage.pack(told)
    assert files == {
        str(prompts): {"prompts.jsonl": prompts.read_bytes()},
        str(lengths): {"lengths.txt": lengths.read_bytes()},
    }
    there = luggage.unpack(told, files, tmp_path / "node")
    assert there.workload.file is not None
    assert there.workload.output_tokens.file is not None
    assert Path(there.workload.file).read_text() == '{"prompt": "Hi"}\n'
    assert Path(there.workload.file).suffix == ".jsonl"
    assert Path(there.workload.output_tokens.file).read_text() == "12\n13\n"
    assert there.model == told.model
    assert luggage.unpack(told, {}, tmp_path) is told


def test_images_travel_with_the_rows_that_name_them(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "pictures").mkdir(parents=True)
    (home / "pictures" / "a.png").write_bytes(b"first")
    (tmp_path / "b.JPG").write_bytes(b"second")
    names = ["pictures/a.png", str(tmp_path / "b.JPG"), "missing.png"]
    rows = home / "rows.jsonl"
    rows.write_text("".join(json.dumps({"image": name}) + "\n" for name in names))
    told = config(workload__kind="file", workload__file=str(rows))
    there = luggage.unpack(told, luggage.pack(told), tmp_path / "node")
    arrived = Path(there.workload.file or "")
    found = [json.loads(line)["image"] for line in arrived.read_text().splitlines()]
    assert [(arrived.parent / name).read_bytes() for name in found[:2]] == [b"first", b"second"]
    assert found[2] == "missing.png"


# --- Ray's private parts ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gone", [(), ray_parts.WATCHERS[:1], ray_parts.WATCHERS])
def test_ray_starts_what_it_likes_where_names_are_gone(gone: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    from ray._private.node import Node as RayNode

    for name in gone:
        monkeypatch.delattr(RayNode, name)
    kept = {name: vars(RayNode).get(name) for name in ray_parts.WATCHERS}
    with ray_parts.without_watchers():
        for name in set(ray_parts.WATCHERS) - set(gone):
            assert getattr(RayNode, name)() is None
        assert not any(hasattr(RayNode, name) for name in gone)
    assert {name: vars(RayNode).get(name) for name in ray_parts.WATCHERS} == kept


def test_modules_of_ray_that_are_gone_cost_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    for name in ("ray._raylet", "ray._private.node", "ray._private.ray_constants"):
        monkeypatch.setitem(sys.modules, name, None)
    with ray_parts.without_watchers(), ray_parts.heeded():
        pass


def test_variables_are_set_for_what_is_started_inside_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    monkeypatch.setenv("RAY_USERS_OWN", "1")
    monkeypatch.delenv("RAY_OURS", raising=False)
    with ray_parts.variables({"RAY_USERS_OWN": "2", "RAY_OURS": "3"}):
        assert (os.environ["RAY_USERS_OWN"], os.environ["RAY_OURS"]) == ("1", "3")
    with ray_parts.variables({"RAY_USERS_OWN": "2"}, override=True):
        assert os.environ["RAY_USERS_OWN"] == "2"
    assert os.environ["RAY_USERS_OWN"] == "1"
    assert "RAY_OURS" not in os.environ
