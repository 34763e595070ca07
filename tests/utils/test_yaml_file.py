from pathlib import Path
from typing import Any

import pytest

from focal_lab.errors import UserError
from focal_lab.utils.yaml import dump_yaml, load_yaml, parse_yaml

FILE = Path("s.yaml")
# each line ten times the one before
LAUGHS = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join(10 * [f'*a{i - 1}'])}]\n" for i in range(1, 8))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: [7, 14\n", "line 3, column 1: did not find expected ',' or ']'"),
        ("a: 1\nb: c: d", "line 2, column 5: mapping values are not allowed"),
        ("a: 1\nb:\n  c: 1\n  c: 2", "line 4, column 3: the key c is given twice"),
        ("a: 1\nlist:\n- {on: 1, true: 2}", "line 3, column 11: the key True is given twice"),
        ("a: &x [*x]", "line 1, column 4: an anchor contains itself"),
        ("a: &x\n  <<: *x", "line 1, column 4: an anchor contains itself"),
        (LAUGHS, "line 1, column 1: its anchors stand for more than 1,000,000 values"),
        ("a: " + 900 * "[" + 900 * "]", "is nested too deeply"),
        ("a:\n\tb: 1", "line 2, column 1: found character that cannot start any token"),
        ("? [1]\n: 2", "line 1, column 3: found unhashable key"),
        ("a: \x00", "unacceptable character #x0000"),
        ("a: 010", "line 1, column 4: 010 is 8 in YAML; write that, or '010' for a text"),
        ("a: [-0777]", "line 1, column 5: -0777 is -511 in YAML"),
        ("a: {b: 1:30}", "line 1, column 8: 1:30 is 90 in YAML"),
        ("a: 1:30.5", "line 1, column 4: 1:30.5 is 90.5 in YAML"),
        ("a: !!int seven", "invalid literal for int"),
        ("a: !!python/object:os.system {}", "line 1, column 4: could not determine a constructor"),
    ],
)
def test_what_is_not_yaml_is_refused_in_one_line_with_its_place(text: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_yaml(text, FILE)
    assert str(caught.value).startswith(f"s.yaml: is not YAML: {message}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "- a\n- b", "just words", "7"])
def test_what_is_no_mapping_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"^s\.yaml: must be a mapping of keys to values$"):
        parse_yaml(text, FILE)


def test_a_file_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    (tmp_path / "binary.yaml").write_bytes(b"a: \xff\xfe")
    (tmp_path / "bom.yaml").write_text("a: 1", encoding="utf-8-sig")
    assert load_yaml(tmp_path / "bom.yaml") == {"a": 1}
    for name, reason in (
        ("nowhere.yaml", "No such file"),
        ("", "Is a dir"),
        ("binary.yaml", "is not a text"),
    ):
        with pytest.raises(UserError) as caught:
            load_yaml(tmp_path / name)
        assert str(caught.value).startswith(f"{tmp_path / name}: cannot be read: {reason}")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("-2.5E3", -2500.0),
        ("3", 3),
        ("0.05", 0.05),
        ("7e", "7e"),
        ("e3", "e3"),
        ("2026-01-02", "2026-01-02"),
        ("on", True),
        ("2-2-6-2", "2-2-6-2"),
        ("'010'", "010"),
        ('"1:30"', "1:30"),
        ("00:12:00:00", "00:12:00:00"),
        ("0", 0),
        ("-0.5", -0.5),
        ("08", "08"),
        ("007", 7),
    ],
)
def test_plain_values_are_what_lightning_cli_takes_them_for(text: str, value: Any) -> None:
    parsed = parse_yaml(f"value: {text}", FILE)["value"]
    assert (parsed, type(parsed)) == (value, type(value))


def test_a_key_may_look_like_a_number_of_another_base() -> None:
    assert list(parse_yaml("levels: {010: {lr: 1}}", FILE)["levels"].values()) == [{"lr": 1}]


def test_merge_keys_put_a_mapping_into_another_which_wins() -> None:
    text = "levels:\n  A: &a {lr: 1, wd: 2}\n  B: &b {<<: *a, lr: 3}\nC: {<<: *b, wd: 4}"
    parsed = parse_yaml(text, FILE)
    assert parsed == {"levels": {"A": {"lr": 1, "wd": 2}, "B": {"lr": 3, "wd": 2}}, "C": {"lr": 3, "wd": 4}}


@pytest.mark.parametrize("value", [0.001, 1e-5, "1e-3", "2026-01-02", "true", True, None, [7, [14]], "ä: b"])
def test_what_is_dumped_is_read_back_as_it_was(value: Any) -> None:
    parsed = parse_yaml(dump_yaml({"b": value, "a": 1}), FILE)
    assert parsed == {"b": value, "a": 1}
    assert type(parsed["b"]) is type(value)
    assert list(parsed) == ["b", "a"]
