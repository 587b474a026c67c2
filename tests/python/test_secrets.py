"""What a policy hides cannot be found again: names, and the hashes that stand for values."""

import ctypes

from memwatch import MemoryWatcher, _pure

NAMES = [
    "APIToken", "JWTToken", "HTTPAuth", "DBPass", "PINCode", "accesstoken", "authtoken", "csrftoken",
    "csrfmiddlewaretoken", "dbpass", "userpass", "pincode", "privkey", "enckey", "masterkey", "dsn", "sentry_dsn",
    "database_url", "redis_url", "conn_str", "connection_string", "webhook_url", "session", "session_id",
    "sessionid", "sid", "jwt", "bearer", "oauth", "oauth_state", "passcode", "totp", "mfa_code", "recovery_code",
    "backup_codes", "mnemonic", "seed_phrase", "nonce", "hmac", "signature", "cvv", "cvc", "ssn", "iban",
    "card_number", "pw", "user_pw", "kennwort", "mdp", "refresh_tok", "tkn", "authn", "authz", "pepper", "keystore",
    "pem", "monkey", "keyboard", "bypass", "compass", "passenger", "author", "pinned", "spinner", "assault",
    "temperature", "weights", "tokenizer", "HTTPServer", "n_words",
]  # fmt: skip


def hashes(values):
    """The hashes of the values that a secret number takes, one after the other."""
    secret = ctypes.c_int32(0)
    events = []
    with MemoryWatcher() as watcher:
        watcher.watch(secret, name="user_pin")
        watcher.set_callback(events.append)
        for value in values:
            secret.value = value
            assert watcher.flush(30)
    assert [event.new_value for event in events] == [None] * len(values)
    return [event.new_hash for event in events]


def test_a_hash_tells_when_a_value_comes_back_and_nothing_else():
    """Each watcher has a key of its own: whoever hashes all ten thousand numbers finds none of them."""
    first, second = hashes([7391, 7392, 7391]), hashes([7391, 7392, 7391])
    assert first[0] == first[2] != first[1]
    assert set(first).isdisjoint(second)


def test_the_core_and_pure_python_hide_the_same_names():
    data = [bytearray(8) for _ in NAMES]
    with MemoryWatcher() as watcher:
        for name, bytes_ in zip(NAMES, data):
            watcher.watch(bytes_, name=name)
        regions = watcher.get_stats(regions=True)["regions"]
    assert {name: regions[name]["values"] for name in NAMES} == {
        name: "hash" if _pure._looks_secret(name) else "full" for name in NAMES
    }


def test_pure_python_hashes_with_a_key():
    assert _pure._hash(b"7391") == _pure._hash(b"7391") != _pure._hash(b"7392")
    assert _pure._hash(None) is None
    assert 0 <= _pure._hash(b"7391") < 1 << 64
