"""The terminal: questions and commands are read, answers appear as they come."""

import shlex
import sys
from collections.abc import Callable
from pathlib import Path

from densekit.chat.conversation import Conversation
from densekit.errors import DataError

PROMPT = ">>> "
HELP = """\
/image FILE  look at another picture, in a new conversation
/reset       begin anew with the same picture
/help        show this
/quit        end, as Ctrl-D does; Ctrl-C stops an answer"""
LEAVE = "Ctrl-D or /quit ends"


class Terminal:
    """Reads questions until there are no more."""

    def __init__(
        self,
        conversation: Conversation,
        *,
        folder: Path,
        seen: tuple[Path, ...] = (),
        read: Callable[[], str] | None = None,
    ) -> None:
        self._conversation = conversation
        self._folder, self._seen = folder, seen
        self._interactive = sys.stdin.isatty()
        self._read = read or self._ask

    def run(self) -> None:
        """Answer every question. Input that is no terminal is a question a line."""
        while True:
            try:
                line = self._read().strip()
            except EOFError:
                self._say("" if self._interactive else None)
                return
            except KeyboardInterrupt:
                if not self._interactive:
                    raise
                self._say(f"\n{LEAVE}")
                continue
            if line in ("/quit", "/exit"):
                return
            try:
                self._take(line)
            except DataError as error:
                if not self._interactive:
                    raise
                self._say(f"densekit: {error}")
            except KeyboardInterrupt:
                if not self._interactive:
                    raise
                self._say(f"\n(stopped; {LEAVE})")

    def _take(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        if not line:
            return
        if word == "/image":
            path = self.picture(rest.strip())
            self._conversation.look_at(path)
            self._say(f"new conversation about {path}")
        elif line == "/reset":
            self._conversation.reset()
            self._say("new conversation")
        elif line == "/help":
            self._say(HELP)
        elif word.startswith("/") and "/" not in word[1:]:
            raise DataError(f"there is no command {word}; /help lists them")
        else:
            self._answer(line)

    def _answer(self, question: str) -> None:
        answer = self._conversation.ask(question, lambda piece: self._write(piece))
        if answer is None:
            self._say("\n(stopped)")
        elif answer.ended:
            self._say("")
        else:
            self._say(f"\n(cut off after {len(answer.ids):,} tokens: raise --max-new-tokens)")

    def picture(self, text: str) -> Path:
        """The path that is typed or dropped into the terminal, in quotes or not. Raises DataError
        where none is given, and where it is outside of the folders that a container sees.
        """
        if not text:
            raise DataError("name a picture: /image FILE")
        try:
            words = shlex.split(text)
        except ValueError:  # a quote that belongs to the name
            words = []
        unquoted = Path(words[0] if len(words) == 1 else text).expanduser()
        path = self._folder / unquoted
        if self._seen and not path.is_file():
            folders = ", ".join(map(str, self._seen))
            raise DataError(
                f"{path} is not there for the container, which sees pictures below {folders} "
                "alone: copy it there"
            )
        return path

    def _ask(self) -> str:
        if self._interactive:
            return input(PROMPT)
        line = sys.stdin.readline()
        if not line:
            raise EOFError
        return line

    def _write(self, piece: str) -> None:
        print(piece, end="", flush=True)

    def _say(self, line: str | None) -> None:
        if line is not None:
            print(line, flush=True)
