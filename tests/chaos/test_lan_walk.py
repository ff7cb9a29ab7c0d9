"""docs/lan.md as it stands, in five network namespaces: from nothing to a cleaned folder."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.walk import DESK, HEAD, NODES, steps, walk


def test_each_block_of_the_page_belongs_to_a_host() -> None:
    assert next(host for host, _ in steps()) == HEAD
    assert [host for host, _ in steps()].count(HEAD) > len(NODES), "each node is invited"
    assert {host for host, _ in steps()} == {HEAD, DESK, *NODES}


@pytest.mark.chaos
@pytest.mark.timeout(900)
def test_a_lan_of_five_hosts_works_by_what_the_page_says(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("a network namespace needs root")
    if missing := [name for name in ("ip", "unshare", "mount") if shutil.which(name) is None]:
        pytest.skip(f"not installed: {', '.join(missing)} (apt install iproute2 util-linux mount)")
    done = walk(tmp_path)
    for step in done:
        print(f"{step.seconds:6.1f} s  {step.host:6}  {step.what}")
    (submitted,) = [step.said for step in done if "lcq submit" in step.what]
    assert "7 done" in submitted
    assert all(node in submitted for node in NODES)
    assert "revoked  gpu-3" in done[-1].said
