"""`paperworks generate`: sample from a model, plain or best of n; text on the terminal while it comes, or JSON lines."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paperworks.cli.layout import on_terminal, paint
from paperworks.cli.train_cmd import add_model_arguments
from paperworks.core.errors import DataError, OptionError
from paperworks.core.options import add_dataclass_arguments

if TYPE_CHECKING:
    from paperworks.language.data.schemas import PromptRow, Text
    from paperworks.language.decoding import BestOf
    from paperworks.language.policy import Policy
    from paperworks.language.rewards import Reward
    from paperworks.language.sampling import Samples

HELP = "Sample responses from a model: one or several a prompt, greedy, or the best of n by a reward."
_ESCAPES = {"\\n": "\n", "\\t": "\t", "\\r": "\r"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from paperworks.language.rewards.options import RewardOptions

    add_model_arguments(parser, lora=False)
    prompts = parser.add_argument_group("prompts")
    which = prompts.add_mutually_exclusive_group()
    which.add_argument(
        "--prompt",
        nargs="+",
        action="extend",
        metavar="TEXT",
        help="one or more prompts; - is the text on standard input",
    )
    which.add_argument(
        "--prompts", metavar="FILE", help="rows with a prompt (text or messages): .jsonl, .csv, .parquet, .txt (a line"
        " each), also .gz; - is JSON lines on standard input",
    )  # fmt: skip
    prompts.add_argument(
        "--map", action="append", metavar="FIELD=COLUMN", help="where --prompts has the prompt: prompt=NAME"
    )
    prompts.add_argument("--limit", type=int, metavar="N", help="only the first N rows of --prompts")
    prompts.add_argument(
        "--chat", action=argparse.BooleanOptionalAction, default=None,
        help="a text is a user's message, laid out by the model's chat template; --no-chat: the model continues the text as"
        " it stands (default: --chat where the model has a template, except for tiny models and models trained here on plain"
        " text)",
    )  # fmt: skip
    prompts.add_argument("--system", metavar="TEXT", help="a system message before each prompt (with --chat)")
    draws = parser.add_argument_group("sampling")
    draws.add_argument("--n", type=int, default=1, metavar="N", help="responses to show for each prompt (default: 1)")
    draws.add_argument(
        "--max-new-tokens", type=int, default=128, metavar="N", help="most tokens of a response (default: 128)"
    )
    draws.add_argument("--temperature", type=float, default=1.0, metavar="X", help="0 is greedy decoding (default: 1)")
    draws.add_argument(
        "--top-k", type=int, default=0, metavar="N", help="keep the N likeliest tokens (default: 0, all)"
    )
    draws.add_argument(
        "--top-p", type=float, default=1.0, metavar="X", help="keep this probability mass (default: 1, all)"
    )
    draws.add_argument(
        "--repetition-penalty", type=float, default=1.0, metavar="X",
        help="above 1: tokens already used become less likely (default: 1)",
    )  # fmt: skip
    draws.add_argument(
        "--stop", action="append", default=[], metavar="TEXT",
        help="ends a response and is cut off it; repeatable; \\n and \\t are understood",
    )  # fmt: skip
    draws.add_argument(
        "--seed", type=int, default=0, metavar="N", help="the same seed draws the same responses (default: 0)"
    )
    best = parser.add_argument_group("best of n")
    best.add_argument("--best-of", type=int, metavar="N", help="draw N responses, show the --n best by --reward")
    best.add_argument(
        "--reward",
        nargs="+",
        action="extend",
        metavar="R",
        help="sentiment, lexicon, length, your own as FILE.py:function, or a reward model's folder or Hub id; several with"
        " --combine",
    )
    add_dataclass_arguments(parser, RewardOptions, group="what is made of the rewards")
    out = parser.add_argument_group("output")
    out.add_argument(
        "--out", metavar="FILE", help="write JSON lines: prompt, responses with text, logp, tokens, finished"
    )
    out.add_argument("--overwrite", action="store_true", help="replace --out where it exists")
    out.add_argument("--json", action="store_true", help="the same rows as a JSON list on standard output")
    out.add_argument("--quiet", action="store_true", help="no progress and no notes")


def run(args: argparse.Namespace) -> int:
    _check(args)
    from paperworks.core.progress import Progress
    from paperworks.language.policy import Policy
    from paperworks.language.sampling import SamplingOptions, check_room, sample

    options = SamplingOptions(
        args.max_new_tokens, args.temperature, args.top_k, args.top_p, args.repetition_penalty, _stops(args.stop)
    )
    loaded: list[Policy] = []  # the reward is named before the model is loaded, and may count the model's tokens
    given, places, rows = _prompts(args)
    reward = _reward(args, loaded, rows)
    policy = Policy.load(
        args.model,
        precision=args.precision or "float32",
        device=args.device or "auto",
        chat_template=args.chat_template,
    )
    loaded.append(policy)
    prompts = _laid_out(args, given, policy)
    for prompt, place in zip(prompts, places, strict=True):
        check_room(policy, policy.encode_prompt(prompt), place)

    draws = args.best_of or args.n
    live = len(prompts) == 1 and draws == 1 and reward is None and on_terminal() and not (args.json or args.out)
    with Progress(quiet=args.quiet or (on_terminal() and not args.json and not args.out)) as progress:
        bar = progress.bar("generating", len(prompts))
        writer = _Writer(args, given, prompts, reward, live=live)
        kept = {name: getattr(options, name) for name in vars(options)}

        def on_prompt(index: int, samples: Samples) -> None:
            writer.add(index, samples)
            bar.advance()

        try:
            on_token = (lambda i, j, text: writer.stream(text)) if live else None
            sample(policy, prompts, n=draws, seed=args.seed, on_token=on_token, on_prompt=on_prompt, **kept)
        except KeyboardInterrupt:
            writer.interrupted()
            raise
        bar.finish()
    writer.finish()
    return 0


def _reward(args: argparse.Namespace, loaded: Sequence[Policy], rows: Sequence[PromptRow] | None) -> Reward | None:
    """The reward of the options; a length penalty counts the tokens of the first model in `loaded` when it is called.

    `rows` are those of --prompts, for rewards that compare answers with a field of them.
    """
    from paperworks.core.options import given_options
    from paperworks.language.rewards import RewardOptions, reward_from_options

    given = given_options(RewardOptions, args)
    if not args.reward:
        if given:
            raise OptionError(f"--{next(iter(given)).replace('_', '-')} goes with --reward")
        return None

    def count_tokens(responses: Sequence[Text]) -> list[int]:
        return [len(ids) for ids in loaded[0].encode_responses(responses)]

    def note(line: str) -> None:
        if not args.quiet:
            print(f"note: {line}", file=sys.stderr)

    return reward_from_options(
        args.reward,
        RewardOptions(**given),
        device=args.device or "auto",
        count_tokens=count_tokens,
        on_note=note,
        rows=rows,
    )


def _check(args: argparse.Namespace) -> None:
    """What can be said before anything is loaded."""
    if not args.model:
        raise OptionError("give the model to sample from: --model ID, FOLDER, smollm2-135m or tiny")
    if not args.prompt and not args.prompts:
        raise OptionError("give something to answer: --prompt TEXT or --prompts FILE")
    for name in ("map", "limit"):
        if getattr(args, name) is not None and not args.prompts:
            raise OptionError(f"--{name} goes with --prompts FILE")
    for name in ("n", "best_of"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise OptionError(f"--{name.replace('_', '-')} {value}: expected at least 1")
    if args.best_of is not None and not args.reward:
        raise OptionError("--best-of needs a reward to choose by: --reward NAME or --reward FILE.py:function")
    if args.best_of is not None and args.best_of < args.n:
        raise OptionError(f"--n {args.n}: more than the {args.best_of} responses of --best-of")
    if args.temperature == 0 and max(args.n, args.best_of or 1) > 1:
        raise OptionError("--temperature 0 is greedy: all responses would be the same; leave --n and --best-of out")
    if args.system is not None and args.chat is False:
        raise OptionError("--system is a chat message; leave --no-chat out")
    if args.out and Path(args.out).is_dir():
        raise OptionError(
            f"--out {args.out}: is a folder; give a file, for example {Path(args.out) / 'responses.jsonl'}"
        )
    if args.out and Path(args.out).exists() and not args.overwrite:
        raise OptionError(f"--out {args.out}: exists; give another file or --overwrite")


def _stops(words: Sequence[str]) -> tuple[str, ...]:
    stops = []
    for word in words:
        for escape, character in _ESCAPES.items():
            word = word.replace(escape, character)
        stops.append(word)
    return tuple(stops)


def _prompts(args: argparse.Namespace) -> tuple[list[Text], list[str], Sequence[PromptRow] | None]:
    """The prompts as given, the name of each for an error, and the rows of a file."""
    if args.prompts:
        from paperworks.language.data import read

        rows = read(args.prompts, "prompt", mapping=args.map or None, limit=args.limit).rows
        return [row.prompt for row in rows], [f"{row.where}: the prompt" for row in rows], rows
    texts = [_standard_input() if text == "-" else text for text in args.prompt]
    return list(texts), [f"prompt {number}" for number in range(1, len(texts) + 1)], None


def _standard_input() -> str:
    try:
        text = sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"expected UTF-8 text; byte {error.start} is not", file="standard input") from None
    return text.removesuffix("\n")


def _laid_out(args: argparse.Namespace, given: Sequence[Text], policy: Policy) -> list[Text]:
    """The prompts as the model gets them: texts wrapped as user messages with --chat, and the system message."""
    from paperworks.language.chat_default import texts_are_messages

    texts = any(isinstance(prompt, str) for prompt in given)
    chat = args.chat
    if chat is None:
        chat = bool(args.system) or texts_are_messages(args.model, policy.tokenizer)
        if texts and policy.tokenizer.chat_template and not args.quiet:
            message, continued = (
                "taken as a user's message (--no-chat: continue",
                "continued as it stands (--chat: answer",
            )
            print(f"note: the prompt is {message if chat else continued} it)", file=sys.stderr)
    system = ({"role": "system", "content": args.system},) if args.system is not None else ()
    out: list[Any] = []
    for prompt in given:
        if isinstance(prompt, str) and not chat:
            out.append(prompt)
            continue
        messages = ({"role": "user", "content": prompt},) if isinstance(prompt, str) else prompt
        out.append(messages if messages and messages[0]["role"] == "system" else (*system, *messages))
    return out


class _Writer:
    """Takes each prompt's responses as they are finished, and shows or keeps them."""

    def __init__(
        self,
        args: argparse.Namespace,
        given: Sequence[Text],
        prompts: Sequence[Text],
        reward: Reward | None,
        *,
        live: bool,
    ) -> None:
        self._args, self._given, self._prompts, self._reward = args, given, prompts, reward
        self._live = _LiveText(args.stop) if live else None
        self._rows: dict[int, dict[str, Any]] = {}
        self._printed = 0
        self._prints = not (args.json or args.out)

    def stream(self, text: str) -> None:
        """The one response that is shown as it comes, so far."""
        assert self._live is not None
        self._live.show(text)

    def add(self, index: int, samples: Samples) -> None:
        """All responses to a prompt. Raises RewardError."""
        self._rows[index] = self._row(index, samples)
        if self._live is not None:
            self._live.end(samples.samples[0].text)
        elif self._prints and on_terminal():
            self._print(index)
        elif self._prints:
            while self._printed in self._rows:  # in a pipe, in the prompts' order
                self._print(self._printed)
                self._printed += 1

    def finish(self) -> None:
        """Everything is there."""
        rows = [self._rows[index] for index in sorted(self._rows)]
        if self._args.json:
            import json

            print(json.dumps(rows, indent=2, ensure_ascii=False))
        if self._args.out:
            self._write(rows)
            if not self._args.quiet:
                print(f"{len(rows)} prompts answered in {self._args.out}", file=sys.stderr)
        if self._args.best_of and not self._args.quiet:
            from paperworks.language.decoding import kl_bound

            n = self._args.best_of
            print(
                f"note: best of {n} is at most {kl_bound(n):.2f} nats from the model (log n - (n-1)/n)", file=sys.stderr
            )

    def interrupted(self) -> None:
        """Keeps what is there when the user stops."""
        if self._args.out and self._rows:
            self._write([self._rows[index] for index in sorted(self._rows)])
            print(
                f"\n{len(self._rows)} of {len(self._prompts)} prompts are answered in {self._args.out}", file=sys.stderr
            )

    def _row(self, index: int, samples: Samples) -> dict[str, Any]:
        """A line of the output; with a reward the responses stand best first, else in the order drawn."""
        from paperworks.language.decoding import best_of, kl_bound

        order, rewards, variances = list(range(len(samples.samples))), None, None
        if self._reward is not None:
            ranked: BestOf = best_of(samples, self._reward, prompt=self._given[index])
            rewards, variances = ranked.rewards, ranked.variances
            order = ranked.ranking if self._args.best_of else order
        responses = []
        for i in order:
            found = samples.samples[i]
            values = {"text": found.text, "logp": found.logp, "tokens": len(found.ids), "finished": found.finished}
            values |= {} if rewards is None else {"reward": rewards[i]}
            responses.append(values if variances is None else {**values, "variance": variances[i]})
        row: dict[str, Any] = {"prompt": samples.prompt, "responses": responses}
        return {**row, "kl_bound": kl_bound(self._args.best_of)} if self._args.best_of else row

    def _print(self, index: int) -> None:
        responses = self._rows[index]["responses"]
        shown = responses[: self._args.n]
        alone = len(self._prompts) == 1 and len(shown) == 1
        if len(self._prompts) > 1:
            from paperworks.cli.layout import cut
            from paperworks.language.data.conversation import plain_text

            text = " ".join(plain_text(self._given[index]).split())
            print(paint(f"# prompt {index + 1}: {_safe(cut(text, 80))}", "bold"))
        for number, response in enumerate(shown, 1):
            if not alone or on_terminal():
                facts = [f"{number}/{len(shown)}", f"{response['tokens']} tokens", f"logp {response['logp']:.2f}"]
                if "reward" in response:
                    facts.append(f"reward {response['reward']:.3f}")
                if "variance" in response:
                    facts.append(f"members' variance {response['variance']:.3f}")
                facts += ["best of " + str(len(responses))] * bool(self._args.best_of)
                facts += ["cut"] * (not response["finished"])
                print(paint(f"## {', '.join(facts)}", "dim"))
            print(_safe(response["text"]))
        if not alone:
            print()
        sys.stdout.flush()

    def _write(self, rows: Sequence[dict[str, Any]]) -> None:
        import json

        from paperworks.core.files import write_atomic, write_error

        try:
            Path(self._args.out).resolve().parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise write_error(error, self._args.out) from None
        write_atomic(self._args.out, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


class _LiveText:
    """Text that grows on the terminal. Holds back what may still change: half a letter, the beginning of a stop string."""

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = _stops(stop)
        self._shown = ""

    def show(self, text: str) -> None:
        settled = text.rstrip("\ufffd")
        held = max((k for word in self._stop for k in range(1, len(word)) if settled.endswith(word[:k])), default=0)
        self._grow(settled[: len(settled) - held])

    def end(self, text: str) -> None:
        self._grow(text)
        print(flush=True)

    def _grow(self, text: str) -> None:
        if text.startswith(self._shown):
            print(_safe(text[len(self._shown) :]), end="", flush=True)
            self._shown = text


def _safe(text: str) -> str:
    """Text without the control characters that could take over a terminal; as it is in a pipe."""
    if not on_terminal():
        return text
    return "".join(c for c in text if c in "\n\t" or not (ord(c) < 32 or 127 <= ord(c) < 160))
