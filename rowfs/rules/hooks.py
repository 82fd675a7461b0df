"""Commands of the administrator that run before, after or because of something: words that no shell ever reads."""

from __future__ import annotations

from collections.abc import Sequence

from rowfs.base.errors import UsageError
from rowfs.base.names import printable

HOOK_WORDS_MAX = 64
HOOK_CHARACTERS_MAX = 4096


def check_hook(words: Sequence[str]) -> None:
    """Raises UsageError unless these words can be a hook; none at all can."""
    if not words:
        return
    if not words[0].startswith("/"):
        raise UsageError(
            f"the hook {printable(words[0])[:80]!r} has to be the full path of a program, as /usr/bin/true"
        )
    if len(words) > HOOK_WORDS_MAX or sum(map(len, words)) > HOOK_CHARACTERS_MAX or any("\0" in word for word in words):
        raise UsageError(f"a hook has at most {HOOK_WORDS_MAX} words and {HOOK_CHARACTERS_MAX} characters, no NUL")
