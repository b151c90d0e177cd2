"""What of a command and of uncommitted changes may be in a folder that is handed on."""

import re

MASK = "***"
PASSWORDS = (
    re.compile(r"(?<=://)(?P<before>[^\s/:@'\"]*:)[^\s/]+(?=@)"),  # user:password@host
    re.compile(r"(?P<before>[?&](?:password|passwd|pwd|token|sslpassword)=)[^\s&'\"]+", re.I),
)
# Files that hold secrets by their name.
FILES = re.compile(
    r"(?:^|[\s/])(?:\.env\b|\.netrc|\.pgpass|\.npmrc|\.pypirc|\.htpasswd|id_(?:rsa|dsa|ecdsa|ed25519))"
    r"|secret|credential|passw(?:or)?d|private_?key|api_?key|(?:^|[\W_])tokens?(?:[\W_]|$)"
    r"|\.(?:env|pem|key|p12|pfx|jks|keystore|kdbx)\b",
    re.I,
)
# Lines that give a secret, or hold one of a well-known form.
LINES = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"
    r"|\b(?:gh[pousr]_|github_pat_|glpat-|hf_|xox[abprs]-|sk-)\w[\w-]{15,}"
    r"|(?:passw(?:or)?d|passwd|secret|token|api_?key|access_?key)\w*['\"]?\]?\s*[=:]\s*"
    r"['\"]?[^\s'\"(){}\[\],$]{8,}"
    r"|://[^\s/:@'\"]*:[^\s/@]+@",
    re.I,
)


def without_passwords(text: str) -> str:
    """A text in which the passwords of addresses are replaced.

    >>> without_passwords("sweep.storage=postgresql://me:hunter2@host/db")
    'sweep.storage=postgresql://me:***@host/db'
    """
    for pattern in PASSWORDS:
        text = pattern.sub(rf"\g<before>{MASK}", text)
    return text


def shareable(diff: str) -> tuple[str, list[str]]:
    """The parts of git's diff that may be kept, and the files whose changes are left out:
    they look like secrets.
    """
    kept: list[str] = []
    left_out: list[str] = []
    for part in re.split(r"^(?=diff --git )", diff, flags=re.MULTILINE):
        head = part.partition("\n")[0]
        if part.startswith("diff --git ") and (FILES.search(head) or LINES.search(part)):
            left_out.append(head.rpartition(" b/")[2].strip('"'))
        else:
            kept.append(part)
    return "".join(kept), left_out
