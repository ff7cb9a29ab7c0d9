"""Which language is spoken, and how what is English on its way is retold."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from lcq import lang
from lcq.cli import translated, wide
from lcq.config import DistributedConfig, load
from lcq.errors import InvalidConfig
from lcq.lang import language_of, ntr, retold, speak, spoken, tr


@pytest.fixture(autouse=True)
def _english_afterwards() -> Iterator[None]:
    yield
    speak("en")


@pytest.mark.parametrize(
    ("arguments", "environment", "spoken"),
    [
        ([], {}, "en"),
        ([], {"LANG": "zh_CN.UTF-8"}, "zh"),
        ([], {"LANG": "zh_CN.UTF-8", "LC_ALL": "C.UTF-8"}, "en"),
        ([], {"LANG": "de_DE.UTF-8", "LC_MESSAGES": "zh_TW"}, "zh"),
        ([], {"LANG": "de_DE.UTF-8", "LANGUAGE": "fr:zh:en"}, "zh"),
        ([], {"LANG": "C", "LANGUAGE": "zh"}, "en"),
        ([], {"LANG": "de_DE.UTF-8"}, "en"),
        ([], {"LANG": "zh_CN.UTF-8", "LCQ_LANG": "en"}, "en"),
        ([], {"LCQ_LANG": "zh-CN"}, "zh"),
        ([], {"LCQ_LANG": "xx", "LANG": "zh_CN"}, "zh"),
        (["--lang", "zh", "tasks"], {"LCQ_LANG": "en"}, "zh"),
        (["--lang=en"], {"LCQ_LANG": "zh"}, "en"),
        (["--lang"], {"LCQ_LANG": "zh"}, "en"),
    ],
)
def test_the_option_goes_before_the_environment_and_that_before_the_locale(arguments, environment, spoken):
    assert language_of(arguments, environment) == spoken


def test_a_setting_may_name_a_language_as_locales_do_and_an_unknown_one_is_refused(monkeypatch):
    monkeypatch.setenv("LCQ_LANG", "zh_CN.UTF-8")
    assert load().lang == "zh"
    monkeypatch.setenv("LCQ_LANG", "xx")
    with pytest.raises(InvalidConfig, match=r"lang: must be \"\", \"en\", \"zh\", found 'xx'"):
        load()
    assert DistributedConfig(lang="").lang == ""


def test_english_loads_nothing_and_is_what_the_sources_say():
    speak("en")
    assert tr("no {what} at all {{}}", what="task") == "no task at all {}"
    assert tr("braces {stay} without facts") == "braces {stay} without facts"
    assert ntr("{n} task", "{n:,} tasks", 1) == "1 task"
    assert ntr("{n} task", "{n:,} tasks", 3000) == "3,000 tasks"
    code = "import sys, lcq.lang as lang; lang.speak_as_asked([]); print(lang.tr('No'), lang._catalogue)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={}, check=True)
    assert said.stdout.split() == ["No", "None"]


def test_chinese_counts_without_a_plural_and_leaves_what_it_does_not_know():
    speak("zh")
    assert spoken() == "zh"
    assert ntr("{n:,} task", "{n:,} tasks", 3000) == "3,000 个任务"
    assert tr("never said anywhere {place}", place=1) == "never said anywhere 1"
    assert tr("") == ""  # and not the head of the catalogue


def test_a_refusal_from_another_process_is_retold_with_what_it_names():
    speak("zh")
    assert retold("no task 'abc'") == "没有任务 'abc'"
    assert (
        retold("queue gpu-high is full: 3 tasks wait, at most 3 may")
        == "队列 gpu-high 已满：有 3 个任务在等待，最多允许 3 个"
    )


def test_what_another_program_or_a_newer_lcq_has_said_stays_as_it_is():
    speak("zh")
    for foreign in ("[Errno 13] Permission denied: 'x'", "a sentence that no LCQ has ever said", "任务", ""):
        assert retold(foreign) == foreign


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (
            "/a/b.jpg: ends too early (3,000 bytes) (copy it again)",
            "/a/b.jpg：文件不完整（只有 3,000 字节）（请重新复制）",
        ),
        ("/a (1)/b (2).png: is empty (0 bytes)", "/a (1)/b (2).png：是空文件（0 字节）"),
        ("nope.jpg is not there", "nope.jpg 不存在"),
        ("of nobody (we know)", "of nobody (we know)"),
    ],
)
def test_what_is_wrong_with_a_picture_is_retold_whole_with_its_hint_behind_it(told: str, said: str):
    speak("zh")
    assert retold(told) == said


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ("done in about 3 min (P90 12 s), a guess", "约 3 分钟（P90 12 秒）后完成，只是猜测"),
        ("retry in 2.5 h", "2.5 小时后重试"),
        ("5 min ago", "5 分钟前"),
        ("in 0.4 s", "0.4 秒后"),
        ("2.0 d", "2.0 天"),
        ("3 minutes", "3 minutes"),
        ("gpu 3 min x", "gpu 3 min x"),
    ],
)
def test_lengths_of_time_in_sentences_have_chinese_units(told: str, said: str):
    speak("zh")
    assert retold(told) == said
    speak("en")
    assert retold(told) == told


def test_a_reason_inside_of_a_refusal_is_retold_too():
    speak("zh")
    said = retold("the log of gpu-1 cannot be read now: no node 'gpu-1'")
    assert said == "现在无法读取 gpu-1 的日志：没有节点 'gpu-1'"


def test_back_in_english_nothing_is_translated_any_more():
    speak("zh")
    assert retold("no task 'abc'") != "no task 'abc'"
    speak("en")
    assert retold("no task 'abc'") == "no task 'abc'"
    assert lang._catalogue is None


def test_what_typer_says_of_a_command_line_and_in_a_help_is_known_in_chinese():
    speak("zh")
    assert [one for one in translated.REFUSALS if retold(one.replace("{a}", "x1")) == one.replace("{a}", "x1")] == []
    assert tr(translated.HELP) != translated.HELP


def test_lines_break_between_chinese_characters_and_never_before_a_full_stop():
    text = "等待轮到，预计 3 分钟后开始（P90 5 分钟）。见 lcq why 06ft3k"
    found = [piece for _, _, piece in wide.pieces(text)]
    assert "".join(found) == text
    assert found[:5] == ["等", "待", "轮", "到，", "预"]
    assert "06ft3k" in found
    assert not any(piece.startswith(("，", "。", "）")) for piece in found)
    assert [piece for _, _, piece in wide.pieces("no Chinese in it")] == ["no ", "Chinese ", "in ", "it"]
