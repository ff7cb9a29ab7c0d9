"""How engines are found and made: ours first, and no stranger's fault takes anything else with it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lcq.models import Device, DeviceKind
from tests.engines import install_engines
from worker.engines.registry import make_engines
from worker.engines.shelf import Shelf
from worker.settings import EngineSettings

CPU = EngineSettings()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that Python looks for packages in."""
    monkeypatch.syspath_prepend(str(tmp_path))
    known = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - known:
        if (tmp_path / f"{name}.py").exists():
            del sys.modules[name]


GOOD = """
class Mine(Engine):
    name = "mine"
    def capabilities(self):
        on_gpu = ModelOffer(kinds=(DeviceKind.GPU,))
        return {"mine-1": ModelOffer(kinds=(DeviceKind.GPU, DeviceKind.CPU)), "mine-gpu": on_gpu}
    def run(self, work):
        return work.picture.pixels
"""


def test_our_own_engines_are_found_by_their_entry_points_in_the_order_of_preference() -> None:
    engines, left_out = make_engines(CPU)
    names = [engine.name for engine in engines]
    assert {"opencv", "lama", "iopaint", "drill"} == set(names) | set(left_out)
    assert names == sorted(names, key=["lama", "opencv", "drill", "iopaint"].index)


def test_an_engine_of_another_package_is_offered_where_its_device_is(folder: Path) -> None:
    install_engines(folder, "mine", "mine = mine:Mine", code=GOOD)
    engines, left_out = make_engines(CPU)
    assert engines[-1].name == "mine"
    assert "mine" not in left_out
    shelf = Shelf(engines, CPU)
    assert shelf.offers["mine-1"].engine == "mine"
    assert "mine-gpu" not in shelf.offers
    gpu = EngineSettings(device=Device(id="GPU-1", kind=DeviceKind.GPU))
    on_gpu = Shelf(make_engines(gpu)[0], gpu)
    assert {"mine-1", "mine-gpu"} <= set(on_gpu.offers)
    assert "cv2-telea" not in on_gpu.offers
    assert "mine-gpu" not in on_gpu.left_out


BAD = """
import os
class NoName(Engine):
    name = ""
    def capabilities(self):
        return {}
class Raises(Engine):
    name = "raises"
    def capabilities(self):
        raise RuntimeError("no\\nlibrary\\x1b[31m")
class Nonsense(Engine):
    name = "nonsense"
    def capabilities(self):
        return ["mine-1"]
class Unmade(Engine):
    name = "unmade"
    def __init__(self, settings):
        raise OSError("libfoo.so.1: cannot open")
class Leaves(Engine):
    name = "leaves"
    def __init__(self, settings):
        raise SystemExit(3)
class NotAnEngine:
    name = "not"
    def __init__(self, settings):
        pass
    def capabilities(self):
        return {}
    def run(self, work):
        pass
NOTHING = None
"""


def test_what_cannot_be_used_is_left_out_by_name_with_what_went_wrong_and_the_rest_works(folder: Path) -> None:
    install_engines(
        folder,
        "strange",
        "no-module = strange_absent:Engine",
        "no-class = strange:Absent",
        "no-callable = strange:NOTHING",
        "no-name = strange:NoName",
        "raises = strange:Raises",
        "nonsense = strange:Nonsense",
        "unmade = strange:Unmade",
        "leaves = strange:Leaves",
        "not-an-engine = strange:NotAnEngine",
        code=BAD,
    )
    install_engines(folder, "broken", "broken = broken:Engine", code="def (")
    install_engines(folder, "mine", "mine = mine:Mine", code=GOOD)
    engines, left_out = make_engines(CPU)
    assert {"opencv", "mine"} <= {engine.name for engine in engines}
    said = {
        "no-module": "ModuleNotFoundError: No module named 'strange_absent'",
        "no-class": "AttributeError: module 'strange' has no attribute 'Absent'",
        "no-callable": "TypeError: 'NoneType' object is not callable",
        "no-name": "TypeError: its name must be a text, found ''",
        "raises": "RuntimeError: no library[31m",
        "nonsense": "TypeError: capabilities() must give a mapping of model names to ModelOffer, found ['mine-1']",
        "unmade": "OSError: libfoo.so.1: cannot open",
        "leaves": "SystemExit: 3",
        "not-an-engine": "TypeError: it has no left_out, estimate, load, unload, held_mib; "
        "write class NotAnEngine(Engine), which inherits them",
        "broken": "SyntaxError: invalid syntax (broken.py, line 2)",
    }
    for name, what in said.items():
        package = "broken" if name == "broken" else "strange"
        assert left_out[name].startswith(f"engine {name} of {package} (")
        assert left_out[name].endswith(f"cannot be used: {what}")
        assert left_out[name].isprintable()


def test_a_strangers_engine_never_takes_the_place_of_ours(folder: Path) -> None:
    code = GOOD.replace('"mine-1"', '"cv2-telea"').replace('"mine"', '"opencv"')
    install_engines(folder, "aaa", "opencv = aaa:Mine", "aaa = aaa:Mine", code=code)
    engines, left_out = make_engines(CPU)
    assert left_out["opencv of aaa"] == "lcq has an engine of this name already"
    shelf = Shelf(engines, CPU)
    assert type(shelf.engine_of("cv2-telea")).__module__ == "worker.engines.opencv"
    assert shelf.left_out["cv2-telea of opencv"] == "engine opencv offers cv2-telea already and comes first"


def test_of_two_strangers_the_first_by_its_packages_name_has_the_model(folder: Path) -> None:
    for package in ("zeta", "alpha"):
        install_engines(folder, package, f"{package} = {package}:Mine", code=GOOD.replace('"mine"', f'"{package}"'))
    shelf = Shelf(make_engines(CPU)[0], CPU)
    assert shelf.offers["mine-1"].engine == "alpha"
    assert shelf.left_out["mine-1 of zeta"] == "engine alpha offers mine-1 already and comes first"


def test_an_lcq_without_its_entry_points_says_how_to_mend_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.engines.registry.metadata.entry_points", lambda group: ())
    engines, left_out = make_engines(CPU)
    assert engines == ()
    assert "install LCQ again" in left_out["lcq"]
