"""Settings: where values come from, which one wins, and what is refused."""

import os
from pathlib import Path

import pytest

from eventbus.errors import SettingsError
from eventbus.settings import ALIASES, Settings
from eventbus.subject import Subjects


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """Begin with no variables of ours, in an empty folder."""
    foreign = {name for names in ALIASES.values() for name in names}
    for name in os.environ:
        if name.upper().startswith("EVENTBUS_") or name in foreign:
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return monkeypatch


def load(environment: pytest.MonkeyPatch, **variables: str) -> Settings:
    for name, value in variables.items():
        environment.setenv(name, value)
    return Settings.load()


def test_without_variables_the_defaults_hold(environment: pytest.MonkeyPatch) -> None:
    settings = Settings.load()

    assert settings == Settings()
    assert (settings.driver, settings.provision, settings.replicas) == ("jetstream", "auto", 1)
    assert settings.servers == ("nats://127.0.0.1:4222",)
    assert settings.subjects == Subjects("events")


def test_every_field_is_a_variable(environment: pytest.MonkeyPatch) -> None:
    settings = load(
        environment,
        EVENTBUS_NATS_URL="nats://a:4222, nats://b:4222",
        EVENTBUS_SCHEMAS="schemas, more.schemas",
        EVENTBUS_GRACE="1m",
        EVENTBUS_RETRY_DELAY="250ms",
        EVENTBUS_METRICS_PORT="0",
    )

    assert settings.servers == ("nats://a:4222", "nats://b:4222")
    assert settings.schemas == ("schemas", "more.schemas")
    assert (settings.grace, settings.retry_delay, settings.metrics_port) == (60.0, 0.25, 0)


def test_what_is_given_in_code_wins_over_the_environment(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("EVENTBUS_NAMESPACE", "outer")

    assert Settings.load(namespace="inner").namespace == "inner"


@pytest.mark.parametrize(
    ("variable", "value", "field", "read"),
    [
        ("NATS_URL", "nats://x:1", "nats_url", "nats://x:1"),
        ("NATS_CREDS", "/run/x.creds", "nats_creds", Path("/run/x.creds")),
        ("NATS_CLIENT_ID", "mail", "connection_name", "mail"),
        ("NATS_CLIENT_ID", "1234", "connection_name", "1234"),
        ("NATS_CLUSTER_ID", "007", "cluster_name", "007"),
        ("APP_EVENT_DRIVER", "sync", "driver", "sync"),
        ("EVENTS_DEFAULT_QUEUE", "1", "default_queue", "1"),
        ("EVENTS_RETRY_ATTEMPTS", "7", "retry_attempts", 7),
        ("EVENT_RETRY_ATTEMPTS", "8", "retry_attempts", 8),
        ("EVENTS_RETRY_DELAY_SECONDS", "2", "retry_delay", 2.0),
        ("EVENTS_RETRY_DELAY_SECONDS", "5m", "retry_delay", 300.0),
        ("EVENT_RETRY_DELAY", "1500", "retry_delay", 1.5),
    ],
)
def test_variables_of_other_conventions_are_read(
    environment: pytest.MonkeyPatch, variable: str, value: str, field: str, read: object
) -> None:
    settings = load(environment, **{variable: value})

    assert getattr(settings, field) == read


def test_our_own_variable_wins_over_an_alias(environment: pytest.MonkeyPatch) -> None:
    settings = load(environment, EVENTBUS_NATS_URL="nats://ours:1", NATS_URL="nats://theirs:1")

    assert settings.nats_url == "nats://ours:1"


def test_our_own_variable_settles_aliases_that_disagree(environment: pytest.MonkeyPatch) -> None:
    settings = load(
        environment,
        EVENTBUS_RETRY_ATTEMPTS="3",
        EVENTS_RETRY_ATTEMPTS="4",
        EVENT_RETRY_ATTEMPTS="5",
    )

    assert settings.retry_attempts == 3


def test_aliases_that_disagree_are_refused_with_both(environment: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError) as raised:
        load(environment, EVENTS_RETRY_DELAY_SECONDS="2", EVENT_RETRY_DELAY="3000")

    assert "EVENTS_RETRY_DELAY_SECONDS=2" in str(raised.value)
    assert "EVENT_RETRY_DELAY=3000" in str(raised.value)
    assert "EVENTBUS_RETRY_DELAY" in str(raised.value)


def test_aliases_that_say_the_same_in_other_units_agree(environment: pytest.MonkeyPatch) -> None:
    settings = load(environment, EVENTS_RETRY_DELAY_SECONDS="2", EVENT_RETRY_DELAY="2000")

    assert settings.retry_delay == 2.0


def test_an_empty_variable_counts_as_unset(environment: pytest.MonkeyPatch) -> None:
    settings = load(
        environment,
        EVENTBUS_NATS_URL="",
        NATS_URL="nats://alias:1",
        EVENTBUS_NATS_CREDS="",
        EVENTBUS_METRICS_PORT="",
        NATS_CREDS="",
    )

    assert settings.nats_url == "nats://alias:1"
    assert (settings.nats_creds, settings.metrics_port) == (None, None)


def test_a_file_named_env_is_read_and_the_environment_wins_over_it(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("EVENTBUS_NAMESPACE=filed\nEVENTBUS_REPLICAS=3\nOTHER=1\n")

    settings = load(environment, EVENTBUS_NAMESPACE="set")

    assert (settings.namespace, settings.replicas) == ("set", 3)


def test_an_empty_variable_hides_what_the_file_says(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("EVENTBUS_TLS_CA=ca.pem\nNATS_URL=nats://filed:1\n")

    settings = load(environment, EVENTBUS_TLS_CA="", NATS_URL="")

    assert settings == Settings(_env_file=None)


def test_aliases_are_read_from_the_file_too(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("NATS_URL=nats://filed:1\n")

    assert Settings.load().nats_url == "nats://filed:1"


def test_our_variable_in_the_file_wins_over_an_alias_in_the_environment(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("EVENTBUS_NATS_URL=nats://ours:1\n")

    assert load(environment, NATS_URL="nats://theirs:1").nats_url == "nats://ours:1"


def test_a_typo_in_the_file_is_refused(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("EVENTBUS_NAMESPCE=x\n")

    with pytest.raises(SettingsError, match="did you mean 'EVENTBUS_NAMESPACE'"):
        Settings.load()


@pytest.mark.parametrize(
    ("variables", "problem"),
    [
        ({"EVENTBUS_NAMESPCE": "x"}, "did you mean 'EVENTBUS_NAMESPACE'?"),
        ({"EVENTBUS_NAMESPACE": "Big"}, "'Big' isn't a namespace"),
        ({"EVENTBUS_INSTANCE": "pod.a"}, "EVENTBUS_INSTANCE: 'pod.a' isn't a process name"),
        ({"EVENTBUS_REPLICAS": "6"}, "EVENTBUS_REPLICAS"),
        ({"EVENTBUS_PROVISION": "maybe"}, "EVENTBUS_PROVISION"),
        ({"EVENTBUS_MAX_AGE": "long"}, "EVENTBUS_MAX_AGE: 'long' isn't a duration"),
        ({"EVENTBUS_MAX_AGE": "-1"}, "EVENTBUS_MAX_AGE"),
        ({"EVENTBUS_TLS_CERT": "a.pem"}, "tls_cert and tls_key belong together"),
        ({"EVENTBUS_NATS_USER": "me"}, "nats_user and nats_password belong together"),
        (
            {"EVENTBUS_NATS_TOKEN": "t", "EVENTBUS_NATS_CREDS": "c"},
            "nats_token and nats_creds are all set",
        ),
        ({"EVENTBUS_DUPLICATE_WINDOW": "8d"}, "must not be longer than max_age"),
        ({"EVENTBUS_EMIT_TIMEOUT": "10m"}, "must be shorter than duplicate_window"),
        ({"EVENTBUS_NATS_URL": ","}, "names no server"),
        ({"EVENTBUS_NATS_URL": "a,http://b:4222"}, "'http://' isn't NATS; use nats, tls"),
        ({"EVENT_RETRY_DELAY": "soon"}, "EVENT_RETRY_DELAY='soon' must be a number of milli"),
        ({"EVENT_RETRY_DELAY": "-5"}, "EVENTBUS_RETRY_DELAY"),
        ({"EVENTS_RETRY_ATTEMPTS": "0"}, "EVENTBUS_RETRY_ATTEMPTS"),
        ({"EVENTS_RETRY_ATTEMPTS": "2.5"}, "EVENTBUS_RETRY_ATTEMPTS"),
    ],
    ids=str,
)
def test_a_wrong_variable_is_refused_by_name_with_what_it_must_be(
    environment: pytest.MonkeyPatch, variables: dict[str, str], problem: str
) -> None:
    with pytest.raises(SettingsError) as raised:
        load(environment, **variables)

    assert problem in str(raised.value)


def test_all_wrong_variables_are_named_at_once(environment: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match=r"EVENTBUS_REPLICAS.*EVENTBUS_LOG_LEVEL"):
        load(environment, EVENTBUS_REPLICAS="0", EVENTBUS_LOG_LEVEL="loud")


@pytest.mark.parametrize("name", ["EVENTBUS_TEST_DELIVERIES", "EVENTBUS_WEBHOOK_SECRET", "X_Y"])
def test_variables_that_others_read_are_let_through(
    environment: pytest.MonkeyPatch, name: str
) -> None:
    assert load(environment, **{name: "x"}) == Settings()


def test_a_setting_that_is_none_is_refused_in_code_too(environment: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match="'drvier' isn't a setting; did you mean 'driver'"):
        Settings.load(drvier="sync")


def test_a_service_may_have_settings_of_its_own(environment: pytest.MonkeyPatch) -> None:
    class MailSettings(Settings):
        namespace_of_mails: str = "x"

    environment.setenv("EVENTBUS_NAMESPACE_OF_MAILS", "mails")

    assert MailSettings.load().namespace_of_mails == "mails"


def test_neither_errors_nor_representations_show_secrets(environment: pytest.MonkeyPatch) -> None:
    settings = load(environment, EVENTBUS_NATS_USER="me", EVENTBUS_NATS_PASSWORD="s3cr3t")
    environment.setenv("EVENTBUS_NATS_TOKEN", "t0k3n")

    with pytest.raises(SettingsError) as raised:
        Settings.load()

    assert "s3cr3t" not in repr(settings)
    assert "s3cr3t" not in str(raised.value)
    assert "t0k3n" not in str(raised.value)
