"""Connections to PostgreSQL: bounded, translated, and silent about the password."""

import socket
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
from embedded import EmbeddedPostgres, free_port
from psycopg import sql

from collector.errors import StorageUnavailable, UnusableDatabase
from collector.storage import database
from collector.storage.database import SESSION_SETTINGS, abandon, connect, deadline, translated

BOUND = 8.0  # seconds: what the design grants a call to a database that does not answer
AUTHENTICATION_OK = b"R\0\0\0\x08\0\0\0\0"
READY_FOR_QUERY = b"Z\0\0\0\x05I"


@contextmanager
def listener(answer: bytes = b"") -> Iterator[str]:
    """The address of a server that sends `answer` to whatever it is told first, and nothing more."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        stop = threading.Event()

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(answer)
                stop.wait(60)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield f"postgresql://u:secret@127.0.0.1:{server.getsockname()[1]}/d?sslmode=disable&gssencmode=disable"
        finally:
            stop.set()
            thread.join(10)


def shown(error: BaseException) -> str:
    """All that a log of the error would show."""
    return "".join(traceback.format_exception(error))


def test_session_is_bounded_and_in_utc(database_url: str) -> None:
    """Prevents a session that waits for ever, or that reads times in the server's zone."""
    with connect(database_url, application_name="tests") as connection:
        for name, value in SESSION_SETTINGS.items():
            assert connection.execute("SELECT current_setting(%s)", [name]).fetchone() == (value,)
        assert connection.autocommit
        assert connection.execute(
            "SELECT application_name FROM pg_stat_activity WHERE pid = pg_backend_pid()"
        ).fetchone() == ("tests",)
        for setting in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
            row = connection.execute("SELECT setting::int FROM pg_settings WHERE name = %s", [setting]).fetchone()
            assert row is not None
            assert 0 < row[0] < BOUND * 1000


def test_url_parameters_win(database_url: str) -> None:
    """Prevents a query parameter of DATABASE_URL from being lost, and the scheme that Heroku writes from failing."""
    url = (
        database_url.replace("postgresql://", "postgres://")
        + "?application_name=mine&connect_timeout=3&keepalives_idle=4"
    )
    with connect(url, application_name="tests") as connection:
        parameters = connection.info.get_parameters()
    assert parameters["application_name"] == "mine"
    assert parameters["connect_timeout"] == "3"
    assert parameters["keepalives_idle"] == "4"
    assert parameters["tcp_user_timeout"] == str(database.SOCKET_PARAMETERS["tcp_user_timeout"])


@pytest.mark.parametrize("setting", ["statement_timeout", "lock_timeout"])
def test_settings_of_the_database_do_not_unbind_a_session(database_url: str, setting: str) -> None:
    """Prevents a database whose owner switched a timeout off from hanging the collector."""
    with connect(database_url, application_name="tests") as connection:
        name = sql.Identifier(connection.info.dbname)
        connection.execute(sql.SQL("ALTER DATABASE {} SET {} = 0").format(name, sql.Identifier(setting)))
    with connect(database_url, application_name="tests") as connection:
        assert connection.execute("SELECT current_setting(%s)", [setting]).fetchone() == (SESSION_SETTINGS[setting],)


def test_server_that_never_answers_is_given_up() -> None:
    """Prevents a flush that waits for ever for a database behind a dead load balancer."""
    started = time.monotonic()
    with listener() as url, pytest.raises(StorageUnavailable, match="timeout") as caught:
        connect(url + "&connect_timeout=2", application_name="tests")
    assert time.monotonic() - started < BOUND
    assert "secret" not in shown(caught.value)


def test_server_that_hangs_after_the_greeting_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents a thread that waits for ever when the server freezes between the greeting and the first answer."""
    monkeypatch.setattr(database, "SETTINGS_DEADLINE", 0.3)
    started = time.monotonic()
    with listener(AUTHENTICATION_OK + READY_FOR_QUERY) as url, pytest.raises(StorageUnavailable):
        connect(url, application_name="tests")
    assert time.monotonic() - started < BOUND


def test_nobody_listens() -> None:
    """Prevents a database that is being restarted from being taken for a bug."""
    url = f"postgresql://u:secret@127.0.0.1:{free_port()}/d"
    with pytest.raises(StorageUnavailable, match="refused") as caught:
        connect(url, application_name="tests")
    assert "\n" not in str(caught.value)
    assert "secret" not in shown(caught.value)
    assert isinstance(caught.value.__cause__, psycopg.OperationalError)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:p%zzsecret@127.0.0.1/d",
        "postgresql://u:p@secret@127.0.0.1/d",
        "postgresql://u:secret/2@127.0.0.1/d",
        "postgresql://u:secret@[::1/d",
        "postgresql://u:p@127.0.0.1/d?secret=1",
        "postgresql://u:p@127.0.0.1:secret/d",
    ],
)
def test_unreadable_url_is_refused_without_being_shown(url: str) -> None:
    """Prevents pieces of a password with an unescaped character from reaching a log through libpq's messages."""
    with pytest.raises(UnusableDatabase, match=r"DATABASE_URL .* percent-encoded") as caught:
        connect(url, application_name="tests")
    assert "secret" not in shown(caught.value)


def wait_until_refused(url: str) -> None:
    """The server reads its rules again a moment after it was asked to."""
    for _ in range(100):
        try:
            psycopg.connect(url).close()
        except psycopg.OperationalError:
            return
        time.sleep(0.1)


@pytest.fixture
def password_url(postgres_server: EmbeddedPostgres, database_url: str) -> Iterator[str]:
    """The address of a role that must tell a password, with a wrong one."""
    rules = postgres_server.directory / "pg_hba.conf"
    before = rules.read_text()
    with psycopg.connect(postgres_server.url(), autocommit=True) as connection:
        connection.execute("CREATE ROLE locked LOGIN PASSWORD 'right'")
        try:
            rules.write_text("host all locked 127.0.0.1/32 scram-sha-256\n" + before)
            connection.execute("SELECT pg_reload_conf()")
            wait_until_refused(database_url.replace("postgres@", "locked@"))
            yield database_url.replace("postgres@", "locked:secret@")
        finally:
            rules.write_text(before)
            connection.execute("SELECT pg_reload_conf()")
            connection.execute("DROP ROLE locked")


def test_wrong_password_waits_for_the_right_one(password_url: str) -> None:
    """Prevents credentials that the platform rotates from ending the collection, and the old ones from being shown."""
    with pytest.raises(StorageUnavailable, match="password authentication failed") as caught:
        connect(password_url, application_name="tests")
    assert "secret" not in shown(caught.value)


def test_missing_database_waits_for_it(postgres_server: EmbeddedPostgres) -> None:
    """Prevents a database that is being made again from ending the collection."""
    with pytest.raises(StorageUnavailable, match="does not exist"):
        connect(postgres_server.url("nowhere"), application_name="tests")


@pytest.mark.parametrize(
    ("statement", "error"),
    [
        ("SET statement_timeout = 50; SELECT pg_sleep(10)", StorageUnavailable),
        ("BEGIN READ ONLY; CREATE TABLE t ()", StorageUnavailable),
        ("SELECT pg_terminate_backend(pg_backend_pid())", StorageUnavailable),
        ("DO $$ BEGIN RAISE SQLSTATE '53100'; END $$", StorageUnavailable),
        ("DO $$ BEGIN RAISE SQLSTATE '40001'; END $$", StorageUnavailable),
        ("DO $$ BEGIN RAISE SQLSTATE '58030'; END $$", StorageUnavailable),
        ("DO $$ BEGIN RAISE SQLSTATE 'XX000'; END $$", StorageUnavailable),
        ("DO $$ BEGIN RAISE SQLSTATE '42501'; END $$", StorageUnavailable),
        ("SELECT 'x'::numeric", psycopg.DataError),
        ("CREATE TABLE t (n int CHECK (n > 0)); INSERT INTO t VALUES (0)", psycopg.IntegrityError),
        ("SELECT * FROM nothing", psycopg.errors.UndefinedTable),
        ("DO $$ BEGIN RAISE SQLSTATE '54000'; END $$", psycopg.OperationalError),
    ],
)
def test_errors_are_sorted_by_who_recovers(database_url: str, statement: str, error: type[Exception]) -> None:
    """Prevents a row's own fault from blocking the spool for ever, and an outage from being blamed on a row."""
    with connect(database_url, application_name="tests") as connection:
        with pytest.raises(error) as caught, translated():
            connection.execute(statement)
        if error is StorageUnavailable:
            assert isinstance(caught.value.__cause__, psycopg.Error)
            assert str(caught.value)
            assert "\n" not in str(caught.value)


def test_closed_connection_is_unavailable(database_url: str) -> None:
    """Prevents the first statement after a lost connection from being taken for a bug."""
    connection = connect(database_url, application_name="tests")
    connection.close()
    with pytest.raises(StorageUnavailable, match="closed"), translated():
        connection.execute("SELECT 1")


def test_other_errors_pass() -> None:
    """Prevents a bug inside the block from being taken for an outage."""
    with pytest.raises(ZeroDivisionError), translated():
        _ = 1 / 0


def test_abandoned_connection_frees_its_thread(database_url: str) -> None:
    """Prevents a thread from hanging on a server that does not answer, long after its call was given up."""
    outcome: list[BaseException] = []
    running = threading.Event()

    def work() -> None:
        with connect(database_url, application_name="tests") as connection:
            connection.execute("SET statement_timeout = 0")
            connections.append(connection)
            running.set()
            try:
                with translated():
                    connection.execute("SELECT pg_sleep(60)")
            except StorageUnavailable as error:
                outcome.append(error)

    connections: list[database.Connection] = []
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    assert running.wait(10)
    abandon(connections[0])
    thread.join(10)
    assert not thread.is_alive()
    assert isinstance(outcome[0], StorageUnavailable)
    assert connections[0].closed


def test_abandoning_twice_or_too_late_is_harmless(database_url: str) -> None:
    """Prevents the clean-up of a call from failing because the call ended in the same moment."""
    with connect(database_url, application_name="tests") as connection:
        abandon(connection)
        abandon(connection)
    abandon(connection)


def test_deadline_spares_who_keeps_it(database_url: str) -> None:
    """Prevents a deadline from cutting the connection after its block has ended."""
    with connect(database_url, application_name="tests") as connection:
        with deadline(connection, 0.5):
            connection.execute("SELECT 1")
        time.sleep(0.7)
        assert connection.execute("SELECT 1").fetchone() == (1,)
        with pytest.raises(StorageUnavailable), translated(), deadline(connection, 0.1):
            connection.execute("SELECT pg_sleep(5)")
