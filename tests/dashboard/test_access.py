"""Who may pass."""

import pytest

from collector.dashboard.access import Access, is_loopback

TOKEN = "correct horse battery staple ü"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.8.8", "::1"])
def test_loopback_is_known(host: str) -> None:
    """Prevents a token from being asked for where nobody else can come in."""
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["", "0.0.0.0", "::", "192.168.0.1", "example.com", "localhost.example.com"])
def test_other_hosts_are_no_loopback(host: str) -> None:
    """Prevents a page that is open to a network without a token."""
    assert not is_loopback(host)


@pytest.mark.parametrize(
    ("header", "allowed"),
    [
        ("localhost:8000", True),
        ("127.0.0.1", True),
        ("[::1]:8000", True),
        ("evil.example:8000", False),
        ("127.0.0.1.evil.example", False),
        ("", False),
    ],
)
def test_without_a_token_only_names_of_loopback_are_answered(header: str, allowed: bool) -> None:
    """Prevents a page of another site, whose name was made to point here, from reading along."""
    assert Access(None).is_name_allowed(header) == allowed
    assert Access(TOKEN).is_name_allowed(header)


def test_token_is_asked_for_once_it_is_set() -> None:
    """Prevents a proxy on this machine from opening to all what has a token."""
    access = Access(TOKEN)
    assert access.may_pass(f"Bearer {TOKEN}", None)
    assert access.may_pass(None, access.cookie)
    assert not access.may_pass(None, None)
    assert not access.may_pass(f"Bearer {TOKEN}x", access.cookie)
    assert not access.may_pass(None, Access(f"{TOKEN}x").cookie)
    assert not access.may_pass(TOKEN, None)
    assert Access(None).may_pass(None, None)
    assert not Access(None).is_token("")


def test_cookie_does_not_hold_the_token() -> None:
    """Prevents a cookie that was stolen from giving the token away."""
    assert TOKEN not in Access(TOKEN).cookie
    assert Access(TOKEN).cookie.isalnum()
