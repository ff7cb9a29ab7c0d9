"""Every command of the console as data: one table feeds the bindings, the footer, the help and the palette."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, IntEnum

from textual.binding import Binding

from lcq.lang import N, tr


class Tier(IntEnum):
    """How much is asked before a command is done (CONSOLE: "How much to ask")."""

    LOOK = 0  # changes nothing: nothing is asked
    UNDOABLE = 1  # can be taken back: done at once for up to ten, beyond that it asks
    COSTLY = 2  # costs work: asks, with the focus on No
    FINAL = 3  # cannot come back: asks for the name or the number to be typed


class Scope(Enum):
    """Where a command is at home; its value is the heading in the help."""

    EVERYWHERE = N("Everywhere")
    TABLE = N("In a table")
    TASKS = N("Tasks")
    QUEUES = N("Queues")
    NODES = N("Nodes")
    CAUSES = N("Causes")
    ACTIVITY = N("Activity")
    SCHEDULES = N("Schedules")
    KEYS = N("Keys")
    DETAIL = N("Details")
    READING = N("Reading")
    PICTURE = N("Pictures")
    LOG = N("In a log")
    ABOUT = N("About one")
    DIALOG = N("In a question")
    PANEL = N("In a list or a form")
    CHOICE = N("In a list to choose from")
    LINE = N("On the command line (:)")
    VIEWS = N("Saved views")
    COLUMNS = N("Columns")


@dataclass(frozen=True)
class Command:
    """One thing an operator can ask for. ``action_<id>`` of the screen or table does it.

    ``label`` is its word in the footer, where ``rank`` (1 is the first) decides who finds room; 0 never. ``word`` is
    what it is called on the command line, and ``takes`` what it is told there; without a word its id is. One without
    keys is only there.
    """

    id: str
    title: str
    keys: tuple[str, ...]
    tier: Tier
    scope: Scope
    label: str = ""
    rank: int = 0
    word: str = ""
    takes: str = ""

    def shown_keys(self, user_keys: Mapping[str, tuple[str, ...]]) -> list[str]:
        """Its keys as they are printed on a keyboard; its word on the command line where it has none.

        ``user_keys``: the operator's own, in place of its own, by the ids of commands.
        """
        return [show_key(key) for key in user_keys.get(self.id, self.keys)] or [f":{self.called}"]

    @property
    def shown_title(self) -> str:
        """Its title in the language that is spoken."""
        return tr(self.title)

    @property
    def shown_label(self) -> str:
        """Its word in the footer in the language that is spoken."""
        return tr(self.label)

    @property
    def called(self) -> str:
        """What the command line calls it."""
        return self.word or self.id.replace("_", "-")


_PRINTED = {
    "escape": "esc", "pagedown": "pgdn", "pageup": "pgup", "question_mark": "?", "slash": "/", "plus": "+",
    "minus": "-", "asterisk": "*", "tilde": "~", "grave_accent": "`", "exclamation_mark": "!", "less_than_sign": "<",
    "greater_than_sign": ">", "left_curly_bracket": "{", "right_curly_bracket": "}", "left_square_bracket": "[",
    "right_square_bracket": "]", "apostrophe": "'", "colon": ":", "full_stop": ".", "equals_sign": "=",
    "ampersand": "&", "backslash": "\\", "semicolon": ";", "left_parenthesis": "(", "right_parenthesis": ")", "at": "@",
}  # fmt: skip


def show_key(key: str) -> str:
    """A key's name as an operator knows it: ``question_mark`` is ``?``, ``ctrl+d`` is ``ctrl-d``."""
    modifier, plus, bare = key.rpartition("+")
    shown = _PRINTED.get(bare, bare)
    return f"{modifier}-{shown}" if plus else shown


_LOOK, _UNDO, _COSTLY, _FINAL = Tier

COMMANDS: tuple[Command, ...] = (
    Command("help", "All keys of this screen", ("question_mark",), _LOOK, Scope.EVERYWHERE, "keys", 99),
    Command("back", "Clear marks, then the filter, then go back", ("escape",), _LOOK, Scope.EVERYWHERE, "back", 7),
    Command("leave", "Back; at the root quit (asks)", ("q",), _LOOK, Scope.EVERYWHERE),
    Command("show_fleet", "The fleet at a glance", ("1",), _LOOK, Scope.EVERYWHERE, word="fleet", takes="[FILTER]"),
    Command("show_tasks", "The tasks", ("2",), _LOOK, Scope.EVERYWHERE, word="tasks", takes="[FILTER]"),
    Command("show_queues", "The queues", ("3",), _LOOK, Scope.EVERYWHERE, word="queues", takes="[FILTER]"),
    Command("show_nodes", "The nodes", ("4",), _LOOK, Scope.EVERYWHERE, word="nodes", takes="[FILTER]"),
    Command("show_causes", "What failed tasks died of", ("5",), _LOOK, Scope.EVERYWHERE, word="causes",
            takes="[FILTER]"),
    Command("show_activity", "Who did what", ("6",), _LOOK, Scope.EVERYWHERE, word="activity", takes="[FILTER]"),
    Command("show_spend", "What functions cost, and may", ("7",), _LOOK, Scope.EVERYWHERE, word="spend"),
    Command("show_schedules", "What is submitted by itself, and when", ("8",), _LOOK, Scope.EVERYWHERE,
            word="schedules", takes="[FILTER]"),
    Command("show_keys", "Who may connect: the keys", ("9",), _LOOK, Scope.EVERYWHERE, word="keys", takes="[FILTER]"),
    Command("earlier_view", "The view before", ("left_square_bracket",), _LOOK, Scope.EVERYWHERE),
    Command("later_view", "The view after, once you went back", ("right_square_bracket",), _LOOK, Scope.EVERYWHERE),
    Command("last_view", "To the last view and back", ("grave_accent",), _LOOK, Scope.EVERYWHERE),
    Command("undo", "Take back what you did last (15 s)", ("u",), _UNDO, Scope.EVERYWHERE, "undo", 9),
    Command("show_history", "The history of acts", ("U",), _LOOK, Scope.EVERYWHERE, word="history"),
    Command("repeat", "Repeat the last act on what is marked now", ("full_stop",), _UNDO, Scope.EVERYWHERE),
    Command("freeze", "Freeze what is shown, or thaw it", ("z",), _LOOK, Scope.EVERYWHERE, "freeze", 12),
    Command("refetch", "Read everything again", ("ctrl+r",), _LOOK, Scope.EVERYWHERE),
    Command("charts", "The last hour as plots", ("h",), _LOOK, Scope.EVERYWHERE, "charts", 16),
    Command("alerts", "Alerts: see what needs you, and silence it", ("B",), _UNDO, Scope.EVERYWHERE),
    Command("command_line", "A command in words", ("colon",), _LOOK, Scope.EVERYWHERE, "command", 18),
    Command("next_theme", "Other colours", ("f2",), _LOOK, Scope.EVERYWHERE),

    Command("saved_views", "Saved views: look so again, or keep how it looks now", ("apostrophe",), _LOOK,
            Scope.EVERYWHERE, "views", 16, word="view", takes="[NAME]"),

    Command("suspend", "Put the console aside (fg brings it back)", ("ctrl+z",), _LOOK, Scope.EVERYWHERE),
    Command("record", "Record what is seen into a file, or end that", ("ampersand",), _LOOK, Scope.EVERYWHERE,
            takes="[FILE]"),
    Command("replay_pause", "In a replay: stand still, or go on", ("backslash",), _LOOK, Scope.EVERYWHERE),
    Command("replay_step", "In a replay: to the next thing that happened", ("semicolon",), _LOOK, Scope.EVERYWHERE),
    Command("replay_faster", "In a replay: faster", ("right_parenthesis",), _LOOK, Scope.EVERYWHERE),
    Command("replay_slower", "In a replay: slower", ("left_parenthesis",), _LOOK, Scope.EVERYWHERE),
    Command("replay_at", "In a replay: to a time", ("at",), _LOOK, Scope.EVERYWHERE),

    Command("open", "Open the row under the cursor", ("enter",), _LOOK, Scope.TABLE, "open", 1),
    Command("describe", "All details of the row", ("d",), _LOOK, Scope.TABLE, "details", 8),
    Command("cursor_down", "One row down", ("j", "down"), _LOOK, Scope.TABLE),
    Command("cursor_up", "One row up", ("k", "up"), _LOOK, Scope.TABLE),
    Command("first", "First row", ("g", "home"), _LOOK, Scope.TABLE),
    Command("last", "Last row", ("G", "end"), _LOOK, Scope.TABLE),
    Command("page_down", "A page down", ("pagedown",), _LOOK, Scope.TABLE),
    Command("page_up", "A page up", ("pageup",), _LOOK, Scope.TABLE),
    Command("half_page_down", "Half a page down", ("ctrl+d",), _LOOK, Scope.TABLE),
    Command("half_page_up", "Half a page up", ("ctrl+u",), _LOOK, Scope.TABLE),
    Command("filter", "Filter: words, state:failed, age<15m, -word", ("slash",), _LOOK, Scope.TABLE, "filter", 7,
            takes="[FILTER]"),
    Command("mark", "Mark the row and step on", ("space",), _LOOK, Scope.TABLE, "mark", 2),
    Command("mark_range", "Mark from the last mark to here", ("v",), _LOOK, Scope.TABLE),
    Command("mark_all", "Mark all that the filter shows, or none", ("asterisk",), _LOOK, Scope.TABLE, "mark all", 15),
    Command("invert_marks", "Mark what is not marked", ("tilde",), _LOOK, Scope.TABLE),
    Command("follow", "Follow the newest", ("f",), _LOOK, Scope.TABLE, "follow", 14),
    Command("sort_left", "Sort by the column to the left", ("less_than_sign",), _LOOK, Scope.TABLE, "sort", 11),
    Command("sort_right", "Sort by the column to the right", ("greater_than_sign",), _LOOK, Scope.TABLE),
    Command("reverse", "Turn the order round", ("O",), _LOOK, Scope.TABLE),
    Command("copy_id", "Copy the id to the clipboard", ("y",), _LOOK, Scope.TABLE, "copy id", 13),

    Command("copy_json", "Copy the row, or what is marked, as JSON", ("Y",), _LOOK, Scope.TABLE),
    Command("save_rows", "Save what is marked, or all that is shown, as CSV or JSON", ("S",), _LOOK, Scope.TABLE),
    Command("attention", "Only what needs attention, or all again", ("exclamation_mark",), _LOOK, Scope.TABLE,
            "needs you", 17),
    Command("next_state", "Only the next state: the counts from left to right", ("tab",), _LOOK, Scope.TABLE),
    Command("previous_state", "Only the state before", ("shift+tab",), _LOOK, Scope.TABLE),
    Command("sort_menu", "Choose the order", ("o",), _LOOK, Scope.TABLE),
    Command("choose_columns", "Choose the columns", ("C",), _LOOK, Scope.TABLE),
    Command("wide", "All columns at their full width, or as they fit", ("w",), _LOOK, Scope.TABLE),
    Command("scroll_right", "Columns further right", ("shift+right",), _LOOK, Scope.TABLE),
    Command("scroll_left", "Columns further left", ("shift+left",), _LOOK, Scope.TABLE),

    Command("submit", "Submit a new task", ("s",), _UNDO, Scope.TASKS, "submit", 3),
    Command("retry", "Retry finished tasks", ("r",), _UNDO, Scope.TASKS, "retry", 4, takes="[WHAT] [--reason TEXT]"),
    Command("retry_changed", "Retry with changes (a form)", ("R",), _UNDO, Scope.TASKS),
    Command("edit", "Edit and submit as a new task (a form)", ("e",), _LOOK, Scope.TASKS),
    Command("move", "Move to another queue or node", ("m",), _UNDO, Scope.TASKS, "move", 5,
            takes="[WHAT] --to PLACE [--reason TEXT]"),
    Command("set_priority", "Set the priority", ("P",), _UNDO, Scope.TASKS, word="prio",
            takes="[WHAT] PRIORITY [--reason TEXT]"),
    Command("raise_priority", "Raise the priority by one", ("plus",), _UNDO, Scope.TASKS, "prio", 10),
    Command("lower_priority", "Lower the priority by one", ("minus",), _UNDO, Scope.TASKS),
    Command("set_deadline", "By when it is to be done", ("T",), _UNDO, Scope.TASKS, word="deadline",
            takes="[WHAT] WHEN [--reason TEXT]"),
    Command("set_privacy", "Whether its pictures may leave the house", ("L",), _COSTLY, Scope.TASKS, word="privacy",
            takes="[WHAT] PRIVACY [--reason TEXT]"),
    Command("comment", "Leave a note with it", ("c",), _UNDO, Scope.TASKS, takes="[WHAT] TEXT"),
    Command("task_log", "Its log", ("l",), _LOOK, Scope.TASKS, word="log"),
    Command("go_to_node", "Go to its node", ("n",), _LOOK, Scope.TASKS),
    Command("go_to_queue", "Go to its queue", ("t",), _LOOK, Scope.TASKS),
    Command("open_pictures", "The pictures: before, mask, after", ("i",), _LOOK, Scope.TASKS, "pictures", 18,
            word="pictures"),
    Command("compare_attempts", "Compare two attempts, two marked tasks, or two tasks of one image", ("equals_sign",),
            _LOOK, Scope.TASKS, word="compare"),
    Command("cancel", "Cancel", ("X",), _COSTLY, Scope.TASKS, "cancel", 6, takes="[WHAT] [--reason TEXT]"),

    Command("toggle_pause", "Pause (asks a reason) or resume", ("p",), _UNDO, Scope.QUEUES, "pause/resume", 3),
    Command("move_backlog", "Move what waits to another queue", ("m",), _UNDO, Scope.QUEUES, "move backlog", 4,
            takes="QUEUE --to QUEUE [--reason TEXT]"),
    Command("empty_queue", "Empty: cancel all that waits (type its name)", ("E",), _FINAL, Scope.QUEUES, "empty it", 5,
            word="empty", takes="QUEUE [REASON]"),

    Command("toggle_block", "Block (takes no new work; asks why) or unblock", ("b",), _UNDO, Scope.NODES, "block", 5),
    Command("node_log", "Its agent's log", ("l",), _LOOK, Scope.NODES, "log", 6),
    Command("drain", "Drain: finish its work, take no more", ("D",), _COSTLY, Scope.NODES, "drain", 3,
            takes="NODE [--deadline SPAN] [REASON]"),
    Command("activate", "Activate: take work again", ("A",), _UNDO, Scope.NODES, "activate", 4, takes="NODE [REASON]"),
    Command("stop_node", "Stop its agent (type its name)", ("K",), _FINAL, Scope.NODES, "stop", 8, word="stop",
            takes="NODE [--deadline SPAN] [REASON]"),

    Command("retry_group", "Retry all that failed so", ("r",), _UNDO, Scope.CAUSES, "retry all", 3),
    Command("move_group", "Move all that failed so", ("m",), _UNDO, Scope.CAUSES, "move all", 4),

    Command("group_causes", "Tell causes apart by model, node, size, too", ("b",), _LOOK, Scope.CAUSES, "group by", 8),
    Command("acknowledge", "Say that you know of it (asks a note)", ("a",), _UNDO, Scope.CAUSES, "acknowledge", 5),

    Command("undo_act", "Take back the act under the cursor", ("r",), _UNDO, Scope.ACTIVITY, "take back", 3),

    Command("toggle_schedule", "Pause (asks a reason) or resume", ("p",), _UNDO, Scope.SCHEDULES, "pause/resume", 3),
    Command("run_schedule", "Run it now (asks)", ("R",), _COSTLY, Scope.SCHEDULES, "run now", 4),

    Command("revoke_key", "Revoke: it is let in no more (type its name)", ("X",), _FINAL, Scope.KEYS, "revoke", 3),

    Command("open_tasks", "Its tasks; of a failed one, all that failed so", ("enter",), _LOOK, Scope.ABOUT, "tasks", 2),
    Command("next_section", "Next section", ("tab",), _LOOK, Scope.DETAIL, "section", 1),
    Command("previous_section", "Previous section", ("shift+tab",), _LOOK, Scope.DETAIL),
    Command("previous_row", "Previous of the list", ("left_curly_bracket",), _LOOK, Scope.DETAIL),
    Command("next_row", "Next of the list", ("right_curly_bracket",), _LOOK, Scope.DETAIL, "next", 8),

    Command("line_down", "One line down", ("j", "down"), _LOOK, Scope.READING),
    Command("line_up", "One line up", ("k", "up"), _LOOK, Scope.READING),
    Command("to_top", "To the top", ("g", "home"), _LOOK, Scope.READING),
    Command("to_end", "To the end", ("G", "end"), _LOOK, Scope.READING),
    Command("half_screen_down", "Half a page down", ("ctrl+d", "pagedown"), _LOOK, Scope.READING),
    Command("half_screen_up", "Half a page up", ("ctrl+u", "pageup"), _LOOK, Scope.READING),
    Command("follow_log", "Follow the newest line, or stay", ("f",), _LOOK, Scope.LOG, "follow", 1),
    Command("wrap_lines", "Long lines wrapped, or cut", ("w",), _LOOK, Scope.LOG, "wrap", 4),
    Command("time_stamps", "Times, or none", ("T",), _LOOK, Scope.LOG, "times", 6),
    Command("log_window", "How far back: all, 1m, 5m, 15m, 1h, 6h", ("t",), _LOOK, Scope.LOG, "window", 5),
    Command("search_log", "Search", ("slash",), _LOOK, Scope.LOG, "search", 2),
    Command("next_match", "The next line with what is searched", ("n",), _LOOK, Scope.LOG, "next", 3),
    Command("previous_match", "The line before with what is searched", ("N",), _LOOK, Scope.LOG),
    Command("mark_line", "Mark the line, or no longer", ("M",), _LOOK, Scope.LOG, "mark", 7),
    Command("save_log", "Save the lines that are shown, or those marked", ("S",), _LOOK, Scope.LOG, "save", 8),

    Command("copy_shown_id", "Copy the id to the clipboard", ("y",), _LOOK, Scope.DETAIL, "copy id", 13),

    Command("next_mode", "Both, wipe, difference, before, after", ("v",), _LOOK, Scope.PICTURE, "both/wipe/diff", 1),
    Command("look_left", "Move the wipe, or what is in sight, to the left", ("left",), _LOOK, Scope.PICTURE,
            "move", 5),
    Command("look_right", "Move the wipe, or what is in sight, to the right", ("right",), _LOOK, Scope.PICTURE),
    Command("look_up", "What is further up", ("up", "k"), _LOOK, Scope.PICTURE),
    Command("look_down", "What is further down", ("down", "j"), _LOOK, Scope.PICTURE),
    Command("pan_left", "What is further left, also in a wipe", ("shift+left",), _LOOK, Scope.PICTURE),
    Command("pan_right", "What is further right, also in a wipe", ("shift+right",), _LOOK, Scope.PICTURE),
    Command("zoom_in", "Nearer", ("plus",), _LOOK, Scope.PICTURE, "zoom", 3),
    Command("zoom_out", "Further away", ("minus",), _LOOK, Scope.PICTURE),
    Command("fit_all", "All of the picture", ("equals_sign",), _LOOK, Scope.PICTURE, "fit", 4),
    Command("one_to_one", "A pixel for a pixel, around the mask", ("o",), _LOOK, Scope.PICTURE, "1:1", 6),
    Command("toggle_mask", "The mask on or off", ("b",), _LOOK, Scope.PICTURE, "mask", 2),
    Command("previous_picture", "Previous task of the list", ("left_curly_bracket",), _LOOK, Scope.PICTURE),
    Command("next_picture", "Next task of the list", ("right_curly_bracket",), _LOOK, Scope.PICTURE, "next", 7),

    Command("agree", "Yes, do it", ("y",), _LOOK, Scope.DIALOG),
    Command("refuse", "No", ("n", "escape"), _LOOK, Scope.DIALOG),
    Command("shut", "Close", ("escape",), _LOOK, Scope.PANEL),
    Command("choice_down", "One down", ("j",), _LOOK, Scope.CHOICE),
    Command("choice_up", "One up", ("k",), _LOOK, Scope.CHOICE),
    Command("choice_first", "The first", ("g",), _LOOK, Scope.CHOICE),
    Command("choice_last", "The last", ("G",), _LOOK, Scope.CHOICE),

    Command("keep_view", "Keep how it looks now, under a name", ("s",), _LOOK, Scope.VIEWS),
    Command("delete_view", "Delete a view of yours (asks)", ("D",), _COSTLY, Scope.VIEWS),

    Command("toggle_column", "Show it, or not", ("space",), _LOOK, Scope.COLUMNS),
    Command("column_up", "Further left", ("shift+up", "K"), _LOOK, Scope.COLUMNS),
    Command("column_down", "Further right", ("shift+down", "J"), _LOOK, Scope.COLUMNS),
    Command("usual_columns", "The usual ones", ("u",), _LOOK, Scope.COLUMNS),

    Command("pause_queue", "Pause a queue", (), _UNDO, Scope.LINE, word="pause", takes="QUEUE [REASON]"),
    Command("resume_queue", "Resume a queue", (), _UNDO, Scope.LINE, word="resume", takes="QUEUE [REASON]"),
    Command("block_node", "Block a node: no new work", (), _UNDO, Scope.LINE, word="block", takes="NODE [REASON]"),
    Command("unblock_node", "Unblock a node", (), _UNDO, Scope.LINE, word="unblock", takes="NODE [REASON]"),
    Command("silence_alert", "Let nobody be told of an alert for a while", (), _UNDO, Scope.LINE, word="silence",
            takes="RULE[/ON] [TIME] [REASON]"),
    Command("unsilence_alert", "Let an alert be heard again", (), _UNDO, Scope.LINE, word="unsilence",
            takes="RULE[/ON] [REASON]"),
    Command("open_task", "The details of a task, by its id or how that begins", (), _LOOK, Scope.LINE, word="task",
            takes="ID"),
    Command("lend_rights", "Act in production for a while", (), _LOOK, Scope.LINE, word="write", takes="SPAN"),
    Command("read_only", "Read alone from now on", (), _LOOK, Scope.LINE),
    Command("switch_context", "Another cluster", (), _LOOK, Scope.LINE, word="ctx", takes="[CONTEXT]"),
    Command("replay", "See a recording again, from a time on", (), _LOOK, Scope.LINE, takes="[TIME] [FILE]"),
    Command("quit_console", "Leave the console", (), _LOOK, Scope.LINE, word="q"),
)  # fmt: skip

PALETTE_KEY = "ctrl+p"

# Keys that a terminal, a multiplexer, a browser or an Input owns, or that are another key's byte.
FORBIDDEN_KEYS = frozenset(
    {
        "ctrl+i", "ctrl+m", "ctrl+h", "ctrl+left_square_bracket", "ctrl+slash", "ctrl+underscore", "ctrl+space",
        "ctrl+at", "shift+enter", "ctrl+enter", "shift+space", "alt+enter", "ctrl+b", "ctrl+a", "ctrl+s",
        "ctrl+shift+c", "ctrl+shift+v", "shift+pageup", "shift+pagedown", "f1", "f10", "f11", "ctrl+w", "ctrl+t",
        "ctrl+n", "ctrl+x", "x", *(f"alt+{digit}" for digit in range(10)),
    }
)  # fmt: skip


def commands_of(*scopes: Scope) -> list[Command]:
    """The commands of ``scopes``, in the table's order."""
    return [command for command in COMMANDS if command.scope in scopes]


def bindings_of(*scopes: Scope) -> list[Binding]:
    """The commands of ``scopes`` as bindings. None is a priority binding: typing into a field always types."""
    return [
        Binding(",".join(command.keys), command.id, command.title, show=False, id=command.id)
        for command in commands_of(*scopes)
    ]


def footer_of(scopes: Iterable[Scope], *, most: int = 8) -> list[Command]:
    """The commands for the footer, by rank; the way to all keys is always among them."""
    told = [command for command in commands_of(*scopes) if command.rank]
    if Scope.TABLE in scopes:  # a list is where one is at home: there esc clears more than it goes back
        told = [command for command in told if command.id != "back"]
    ranked = sorted(told, key=lambda command: command.rank)
    return [*ranked[:-1][: most - 1], ranked[-1]] if ranked else []
