"""Saved views: a filter, an order and columns under a name, shipped ones and the user's own. No terminal here.

The user's are in one file (``views.json`` in the folder of their settings, XDG_CONFIG_HOME) that only they can read.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs

from lcq.errors import LcqError
from lcq.lang import N, retold_error, tr
from lcq.private_folder import make_private
from lcq.query import words_of
from tui.text import clean

NEEDS_ATTENTION = "needs:attention"
MODES = ("fleet", "tasks", "queues", "nodes", "causes", "activity")
_LISTS = (*MODES, "schedules", "keys")
MOST_VIEWS = 200
LONGEST_NAME = 60
_MOST_BYTES = 1_000_000


@dataclass(frozen=True)
class SavedView:
    """How one of the views (``mode``) was looked at. ``columns``: their ids from the left; None: the usual ones."""

    name: str
    mode: str
    filter_text: str = ""
    sort: str = ""  # "": the usual order
    descending: bool = False
    columns: tuple[str, ...] | None = None
    shipped: bool = False

    @property
    def shown_name(self) -> str:
        """Its name; of one that came with LCQ, in the language that is spoken."""
        return tr(self.name) if self.shipped else self.name

    @property
    def told(self) -> str:
        """What it shows, in one line."""
        words = [self.mode, self.filter_text or tr("all")]
        if self.sort:
            words.append(tr("by {sort}{what}", sort=self.sort, what=tr(", descending") if self.descending else ""))
        if self.columns is not None:
            words.append(tr("{count} columns", count=len(self.columns)))
        return "  ".join(words)


SHIPPED = (
    SavedView(N("needs attention"), "tasks", NEEDS_ATTENTION, shipped=True),
    SavedView(N("failed in the last day"), "tasks", "state:failed age<1d", shipped=True),
    SavedView(N("waits longest"), "tasks", "state:waiting", sort="age", shipped=True),
    SavedView(N("runs longest"), "tasks", "state:running", sort="took", descending=True,
              columns=("id", "took", "progress", "state", "node", "model", "image", "why"), shipped=True),
    SavedView(N("tried again"), "tasks", "try>1 -state:done", shipped=True),
    SavedView(N("nodes that need attention"), "nodes", NEEDS_ATTENTION, shipped=True),
    SavedView(N("queues that need attention"), "queues", NEEDS_ATTENTION, shipped=True),
)  # fmt: skip


class ViewsNotKept(LcqError):
    """The file of saved views cannot be written; nothing is lost but what was to be saved."""

    def __init__(self, path: Path, found: str) -> None:
        super().__init__(
            f"the views cannot be saved in {path}: {found}", hint="is there room, and may you write there?"
        )


class SavedViews:
    """The user's views, by name, kept in a file. With no path they last as long as the process."""

    def __init__(self, path: Path | None = None) -> None:
        """``problem`` tells what was wrong with the file; what could be read of it is there."""
        self.path = path
        self.problem = ""
        self._views: dict[str, SavedView] = {}
        self._read()

    @property
    def all(self) -> tuple[SavedView, ...]:
        """The user's own by name, then the shipped ones."""
        return (*sorted(self._views.values(), key=lambda view: view.name.casefold()), *SHIPPED)

    def __contains__(self, name: str) -> bool:
        return name in self._views

    def save(self, view: SavedView) -> None:
        """Keep ``view`` under its name, in place of what had that name.

        Raises:
            LcqError: it has no name, or there are too many.
            ViewsNotKept: the file cannot be written.
        """
        name = clean(view.name).strip()[:LONGEST_NAME]
        if not name:
            raise LcqError("a saved view needs a name")
        self._read()  # another console of this user may have saved one meanwhile
        if name not in self._views and len(self._views) >= MOST_VIEWS:
            raise LcqError(f"{MOST_VIEWS} views are saved: delete one first")
        self._views[name] = SavedView(
            name, view.mode, view.filter_text, view.sort, view.descending, view.columns
        )  # fmt: skip
        self._write()

    def delete(self, name: str) -> None:
        """Forget the user's view of that name, if there is one.

        Raises:
            ViewsNotKept: the file cannot be written.
        """
        self._read()
        if self._views.pop(name, None) is not None:
            self._write()

    def _read(self) -> None:
        if self.path is None:
            return
        try:
            with self.path.open("rb") as file:
                found = json.loads(file.read(_MOST_BYTES))
            views = [_view_of(one) for one in found["views"]]
        except FileNotFoundError:
            self._views = {}
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            self.problem = tr(
                "{path} cannot be read ({error}): it is put aside when you save a view",
                path=self.path,
                error=retold_error(error),
            )
        else:
            self.problem = ""
            self._views = {view.name: view for view in views[:MOST_VIEWS] if view is not None}

    def _write(self) -> None:
        if self.path is None:
            return
        views = [
            {"name": view.name, "mode": view.mode, "filter": view.filter_text, "sort": view.sort,
             "descending": view.descending, "columns": view.columns}
            for view in self._views.values()
        ]  # fmt: skip
        try:
            make_private(self.path.parent)
            if self.problem:
                self.path.replace(self.path.with_suffix(".damaged.json"))
            descriptor, beside = tempfile.mkstemp(dir=self.path.parent, prefix=".views-")  # mode 0600
            try:
                with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                    json.dump({"views": views}, file, indent=1, ensure_ascii=False)
                Path(beside).replace(self.path)
            except BaseException:
                Path(beside).unlink(missing_ok=True)
                raise
        except OSError as error:
            raise ViewsNotKept(self.path, error.strerror or str(error)) from error
        self.problem = ""


def views_path() -> Path:
    """The file of this user's views."""
    return Path(platformdirs.user_config_dir("lcq")) / "views.json"


def _view_of(told: Any) -> SavedView | None:
    """What the file tells of a view; None where it means nothing here (a newer console may have written it)."""
    if not isinstance(told, dict) or told.get("mode") not in _LISTS:
        return None
    name = clean(str(told.get("name", ""))).strip()[:LONGEST_NAME]
    columns = told.get("columns")
    if not name:
        return None
    return SavedView(
        name, told["mode"], clean(str(told.get("filter", ""))), clean(str(told.get("sort", ""))),
        bool(told.get("descending")), tuple(map(str, columns)) if isinstance(columns, list) else None,
    )  # fmt: skip


# ---------------------------------------------------------------- parts of a filter

_STATE = re.compile(r"[-!]?state(?:[:=]|!=)\S*", re.IGNORECASE)


def with_state(filter_text: str, clause: str) -> str:
    """``filter_text`` with its clauses about the state replaced by ``clause`` ("": by none)."""
    kept = [word for word in words_of(filter_text) if not _STATE.fullmatch(word)]
    return " ".join([*kept, clause] if clause else kept)


def state_of(filter_text: str) -> str:
    """The one clause about the state in a filter; "" where there is none, or several."""
    found = [word for word in words_of(filter_text) if _STATE.fullmatch(word)]
    return found[0] if len(found) == 1 else ""


def toggled(filter_text: str, clause: str) -> str:
    """``filter_text`` with ``clause`` added, or taken away where it is."""
    words = words_of(filter_text)
    return " ".join([word for word in words if word != clause] if clause in words else [*words, clause])
