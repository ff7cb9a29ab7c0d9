"""The site made of docs/ and the READMEs: ``python -m tests.site`` (make site) builds it in build/site, strictly.

It is built from a copy of the pages in which each lies where it lies in the repository, so that every link holds in
both. What pages link to comes along: a sample file as it is, a folder as a list of what is in it. A link or an anchor
that leads nowhere ends the build, and so does what a browser would fetch from another host. No network is needed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).parents[1]
BUILD = ROOT / "build" / "site"
START = ("README.md", "README.zh-CN.md", "CHANGELOG.md")
NAV: dict[str, tuple[str, ...]] = {
    "Begin": ("quickstart", "lan", "gpus", "redis", "serverless"),
    "Use": ("console", "keys", "filter", "why", "pictures", "bytes", "models", "costs", "schedules", "languages"),
    "Run": ("security", "enrolment", "discovery", "doctor", "services", "containers", "cluster-managers", "autoscale",
            "metrics", "alerts", "logs", "traces", "backup", "archive", "report", "upgrade"),
    "Look up": ("troubleshooting", "cli", "config", "http", "python", "faults"),
    "Inside": ("engines", "architecture", "states"),
}  # fmt: skip
"""The sections, each with its pages in docs/. One that is not there is left out; what stands in none is in "More"."""
_FENCE = re.compile(r"^ *(```+|~~~+)[^\n]*\n.*?^ *\1 *$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"(`+)(?!`).+?(?<!`)\1(?!`)", re.DOTALL)
_LINK = re.compile(r"(!?\[(?:[^\[\]]|\[[^\]]*\])*\]\()([^)\s]+)((?:\s+\"[^\"]*\")?\))")
_ELSEWHERE = re.compile(
    rb"""(?:<(?:link|script|img|iframe)\b[^>]*?\b(?:href|src)=["']?|@import\s|url\(["']?)https?://"""
)


def links_of(page: str) -> list[str]:
    """Where ``page`` leads, but for other sites; code is no link."""
    plain = _CODE.sub("", _FENCE.sub("", page))
    return [link for _, link, _ in _LINK.findall(plain) if not re.match(r"[a-z][a-z0-9+.-]*:", link)]


def target_of(page: PurePosixPath, link: str) -> str:
    """The file or folder in the repository that ``link`` of ``page`` means; "": of the page itself."""
    path = link.partition("#")[0]
    return os.path.normpath(page.parent / path) if path else ""


def lost_links(page: PurePosixPath) -> list[str]:
    """Links of a page that lead to nothing in the repository."""
    found = links_of((ROOT / page).read_text(encoding="utf-8"))
    return [f"{page}: {link}" for link in found if not (ROOT / target_of(page, link)).exists()]


def pages() -> list[PurePosixPath]:
    """All that is on the site: the pages of docs/, the READMEs, and what these lead to that is a page."""
    todo = [PurePosixPath(name) for name in START]
    todo += sorted(PurePosixPath(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))
    found: dict[PurePosixPath, None] = {}
    while todo:
        page = todo.pop(0)
        if page in found or not (ROOT / page).is_file():
            continue
        found[page] = None
        for link in links_of((ROOT / page).read_text(encoding="utf-8")):
            target = target_of(page, link)
            if target.endswith(".md"):
                todo.append(PurePosixPath(target))
    return list(found)


def title_of(page: PurePosixPath) -> str:
    heading = re.search(r"^# +(.+)$", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE)
    return re.sub(r"[`*]", "", heading[1]) if heading else page.stem


def _folder_page(folder: str) -> str:
    """A page for a folder that pages lead to: what is in it."""
    names = sorted(path.name + "/" * path.is_dir() for path in (ROOT / folder).iterdir() if path.name[0] not in "._")
    lines = [
        f"- [{title_of(PurePosixPath(folder, name)) if name.endswith('.md') else name}]({name})"
        for name in names
        if not name.endswith("/")
    ]
    return f"# {folder}\n\n" + "\n".join(lines) + "\n"


def stage(into: Path) -> list[PurePosixPath]:
    """Copy the pages, and what they lead to, below ``into``; returns the pages."""
    own = pages()
    folders: set[str] = set()
    for page in own:
        text = (ROOT / page).read_text(encoding="utf-8")
        for link in links_of(text):
            target = target_of(page, link)
            if (ROOT / target).is_dir() and target:
                folders.add(target)
                text = text.replace(f"]({link})", f"]({link.rstrip('/')}/README.md)")
            elif target and not target.endswith(".md"):
                _copy(target, into)
        place = into / page
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8")
    for folder in sorted(folders):
        place = into / folder / "README.md"
        place.parent.mkdir(parents=True, exist_ok=True)
        if not place.exists():
            place.write_text(_folder_page(folder), encoding="utf-8")
            for path in (ROOT / folder).iterdir():
                if path.is_file():
                    _copy(str(path.relative_to(ROOT)), into)
    return own


def _copy(file: str, into: Path) -> None:
    place = into / file
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, place)


def nav(own: list[PurePosixPath]) -> list[dict[str, object]]:
    """The navigation, as Zensical takes it."""
    left = {str(page): page for page in own}

    def entry(path: str) -> dict[str, object]:
        return {title_of(left.pop(path)): path}

    out: list[dict[str, object]] = [{"LCQ": "README.md"}]
    left.pop("README.md")
    for section, names in NAV.items():
        out.append({section: [entry(f"docs/{name}.md") for name in names if f"docs/{name}.md" in left]})
    decisions = sorted(path for path in left if path.startswith("docs/decisions/"))
    inside = out[-1]["Inside"]
    assert isinstance(inside, list)
    inside.append({"Decisions": [entry(path) for path in decisions]})
    more = sorted(path for path in left if path not in ("README.zh-CN.md", "CHANGELOG.md"))
    out.append({"More": [entry(path) for path in (*more, "CHANGELOG.md", "README.zh-CN.md")]})
    return out


def _as_toml(value: object) -> str:
    if isinstance(value, dict):
        return (
            "{"
            + ", ".join(f"{json.dumps(key, ensure_ascii=False)} = {_as_toml(one)}" for key, one in value.items())
            + "}"
        )
    if isinstance(value, list):
        return "[" + ", ".join(map(_as_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def settings(own: list[PurePosixPath]) -> str:
    """zensical.toml: nothing that a reader's browser would fetch from elsewhere."""
    return f"""[project]
site_name = "LCQ"
site_description = "Image clean-up as a fleet's work, with nothing lost"
docs_dir = "pages"
site_dir = "html"
nav = {_as_toml(nav(own))}

[project.theme]
language = "en"
font = false
features = ["navigation.indexes", "navigation.top", "toc.follow", "content.code.copy"]

[[project.theme.palette]]
scheme = "default"
toggle = {{icon = "lucide/sun", name = "dark"}}

[[project.theme.palette]]
scheme = "slate"
toggle = {{icon = "lucide/moon", name = "light"}}
"""


def elsewhere(folder: Path) -> list[str]:
    """Pages and styles of the site that make a browser fetch from other hosts."""
    files = (path for kind in ("*.html", "*.css") for path in folder.rglob(kind))
    return sorted(str(path.relative_to(folder)) for path in files if _ELSEWHERE.search(path.read_bytes()))


def main() -> int:
    begun = time.monotonic()
    if lost := [line for page in pages() for line in lost_links(page)]:
        print("these lead to nothing:", *lost, sep="\n", file=sys.stderr)
        return 1
    shutil.rmtree(BUILD, ignore_errors=True)
    own = stage(BUILD / "pages")
    (BUILD / "zensical.toml").write_text(settings(own), encoding="utf-8")
    program = [sys.executable, "-m", "zensical", "build", "--strict"]
    done = subprocess.run(program, cwd=BUILD, capture_output=True, text=True, check=False, timeout=600)
    said = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr)
    if done.returncode:
        print(said.partition("Traceback")[0], file=sys.stderr)
        return 1
    if strange := elsewhere(BUILD / "html"):
        print("these would fetch from other hosts:", *strange, sep="\n", file=sys.stderr)
        return 1
    print(f"{len(own)} pages: {BUILD.relative_to(ROOT)}/html/index.html ({time.monotonic() - begun:.1f} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
