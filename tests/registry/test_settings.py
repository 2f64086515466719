"""Settings: which source wins, and what a wrong value says."""

from pathlib import Path

import pytest

from paddock.registry.errors import BadValue, UnknownName
from paddock.registry.settings import SETTINGS, read_settings


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The config.yaml of an empty home folder."""
    return tmp_path / "config.yaml"


def environ(config: Path, **more: str) -> dict[str, str]:
    return {"PADDOCK_HOME": str(config.parent), **more}


def test_each_source_yields_to_the_one_above(config: Path) -> None:
    """A flag beats the environment, that beats config.yaml, and that beats the default."""
    assert read_settings(environ=environ(config)).port == 9997
    config.write_text("port: 1111\n")
    assert read_settings(environ=environ(config)).port == 1111
    assert read_settings(environ=environ(config, PADDOCK_PORT="2222")).port == 2222
    with_flag = read_settings({"port": 3333}, environ(config, PADDOCK_PORT="2222"))
    assert with_flag.port == 3333


def test_what_is_empty_counts_as_not_given(config: Path) -> None:
    """A flag of None and an empty variable leave the next source to decide."""
    config.write_text("host: 0.0.0.0\n")
    assert read_settings({"host": None}, environ(config, PADDOCK_HOST="")).host == "0.0.0.0"


def test_a_setting_may_have_a_second_variable(config: Path) -> None:
    """Ray's own variable is known too, below ours."""
    assert read_settings(environ=environ(config, RAY_ADDRESS="a:1")).ray_address == "a:1"
    both = environ(config, RAY_ADDRESS="a:1", PADDOCK_RAY_ADDRESS="b:2")
    assert read_settings(environ=both).ray_address == "b:2"


def test_paths_and_endpoints_are_made_plain(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The home folder is absolute, and an endpoint has no slash at its end."""
    monkeypatch.setenv("HOME", "/home/somebody")
    settings = read_settings({"home": "~/zoo", "endpoint": "http://h:1/"}, {})
    assert settings.home == Path("/home/somebody/zoo")
    assert settings.endpoint == "http://h:1"
    assert settings.logs.is_relative_to(settings.home)
    assert settings.index.is_relative_to(settings.home)


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("PADDOCK_PORT", "http", "whole number"),
        ("PADDOCK_PORT", "80.5", "whole number"),
        ("PADDOCK_PORT", "65536", "between 0 and 65535"),
        ("PADDOCK_PORT", "-1", "between 0 and 65535"),
        ("PADDOCK_HUB_TIMEOUT", "0", "between"),
        ("PADDOCK_HUB_TIMEOUT", "nan", "between"),
        ("PADDOCK_HUB_TIMEOUT", "soon", "number"),
        ("PADDOCK_HUB", "hugging", "huggingface, modelscope or auto"),
        ("PADDOCK_LOG_LEVEL", "loud", "debug, info"),
        ("PADDOCK_ENDPOINT", "localhost:9997", "http://"),
    ],
)
def test_a_wrong_variable_is_named(config: Path, variable: str, value: str, says: str) -> None:
    """The message has the variable, its value and what it must be."""
    with pytest.raises(BadValue, match=says) as error:
        read_settings(environ=environ(config, **{variable: value}))
    assert variable in str(error.value)
    assert value in str(error.value)


def test_a_wrong_flag_and_a_wrong_line_are_named(config: Path) -> None:
    """A value's source is said as the user wrote it: the flag, or the line of config.yaml."""
    with pytest.raises(BadValue, match=r"^--hub-timeout 'x'"):
        read_settings({"hub_timeout": "x"}, environ(config))
    config.write_text("port: x\n")
    with pytest.raises(BadValue, match=r"^config\.yaml: port 'x'"):
        read_settings(environ=environ(config))


def test_an_unknown_key_is_refused_with_near_names(config: Path) -> None:
    """A misspelt key of config.yaml is never passed over in silence."""
    config.write_text("hub_timout: 3\n")
    with pytest.raises(UnknownName, match="hub_timeout") as error:
        read_settings(environ=environ(config))
    assert str(config) in str(error.value)


def test_the_home_folder_cannot_be_set_inside_itself(config: Path) -> None:
    """config.yaml lies in the home folder, so it cannot move it."""
    config.write_text("home: /elsewhere\n")
    with pytest.raises(UnknownName, match="home"):
        read_settings(environ=environ(config))


@pytest.mark.parametrize(
    "content",
    [b"- a\n- b\n", b"port: [1]\n", b"port: {a: 1}\n", b"port: 'x\n", b"\xff\xfe", b"word"],
)
def test_a_config_of_the_wrong_shape_is_one_line(config: Path, content: bytes) -> None:
    """Whatever is wrong with the file, the error is a `BadValue` in one line that names it."""
    config.write_bytes(content)
    with pytest.raises(BadValue, match=r"config\.yaml") as error:
        read_settings(environ=environ(config))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", ["", "# nothing but a comment\n", "---\n"])
def test_an_empty_config_sets_nothing(config: Path, content: str) -> None:
    """A file of comments is as good as none."""
    config.write_text(content)
    assert read_settings(environ=environ(config)).port == 9997


def test_a_config_that_cannot_be_read_is_said(config: Path) -> None:
    """A folder in the place of the file is an error that names it."""
    config.mkdir()
    with pytest.raises(BadValue, match="cannot be read"):
        read_settings(environ=environ(config))


def test_the_home_of_nobody_is_refused() -> None:
    """`~name` of a user that does not exist is a wrong value and not a crash."""
    with pytest.raises(BadValue, match="home"):
        read_settings(environ={"PADDOCK_HOME": "~nobody-of-that-name/x"})


def test_the_table_is_short_and_explained() -> None:
    """At most a dozen settings, each with a variable of ours and a meaning."""
    assert len(SETTINGS) <= 12
    assert all(row.variables[0].startswith("PADDOCK_") and row.help for row in SETTINGS)
