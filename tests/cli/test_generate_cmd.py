"""`paperworks generate`: prompts in, responses out, as text, JSON or JSON lines; mistakes cost one line and exit 2."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from paperworks.cli import generate_cmd
from paperworks.cli.main import main
from paperworks.language.policy import Policy
from paperworks.language.sampling import sample
from paperworks.language.testbeds.reviews import generate_reviews
from paperworks.language.tiny import TinySpec, byte_level_tokenizer, fresh_policy

torch.set_num_threads(1)
PROMPTS = ["The film was", "To us the plot of this film was", "Why"]
Outcome = tuple[int, str, str]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = byte_level_tokenizer([p + r for p, r in generate_reviews(200, 0)], 350)
    folder = tmp_path_factory.mktemp("models") / "small"
    return fresh_policy(TinySpec(layers=1, width=32, heads=2, context=128), tokenizer).save(folder)


@pytest.fixture(scope="module")
def chat_model(model: Path) -> Path:
    """The same weights with a chat template of their own, as an instruct model has."""
    policy = Policy.load(model, device="cpu")
    policy.tokenizer.chat_template = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}[assistant] "
    return policy.save(model.parent / "chat")


@pytest.fixture
def generate(capsys: pytest.CaptureFixture[str], model: Path) -> Callable[..., Outcome]:
    """Runs the command and returns (exit code, standard output, standard error)."""

    def run(*arguments: object, use: Path = model, tokens: int = 8) -> Outcome:
        words = [
            "generate",
            "--model",
            str(use),
            "--device",
            "cpu",
            "--max-new-tokens",
            str(tokens),
            *map(str, arguments),
        ]
        code = main(words)
        found = capsys.readouterr()
        return code, found.out, found.err

    return run


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate_cmd, "on_terminal", lambda: True)


def prompt_file(folder: Path, rows: list[Any]) -> Path:
    path = folder / "prompts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def texts_of(folder: Path, prompts: list[Any], **options: Any) -> list[list[str]]:
    options = {"max_new_tokens": 8, **options}
    return [found.texts for found in sample(Policy.load(folder, device="cpu"), prompts, **options)]


# -------------------------------------------------------------------------------------------------------------- prompts


def test_one_prompt_in_a_pipe_gives_its_text_alone(generate: Any, model: Path) -> None:
    code, out, err = generate("--prompt", PROMPTS[0])
    assert code == 0
    assert out == texts_of(model, PROMPTS[:1])[0][0] + "\n"
    assert "continued as it stands" in err


def test_several_prompts_keep_their_order_in_a_pipe(generate: Any, model: Path) -> None:
    _, out, _ = generate("--prompt", *PROMPTS[::-1], "--n", 2)
    heads = [line for line in out.splitlines() if line.startswith("# prompt")]
    assert heads == [f"# prompt {number}: {prompt}" for number, prompt in enumerate(PROMPTS[::-1], 1)]
    for text in (text for texts in texts_of(model, PROMPTS[::-1], n=2) for text in texts):
        assert text in out


def test_rows_of_a_file_are_answered_in_json(generate: Any, model: Path, tmp_path: Path) -> None:
    path = prompt_file(tmp_path, [{"question": prompt} for prompt in PROMPTS])
    code, out, _ = generate("--prompts", path, "--map", "prompt=question", "--limit", 2, "--json")
    rows = json.loads(out)
    assert code == 0
    assert [row["prompt"] for row in rows] == PROMPTS[:2]
    assert [[found["text"] for found in row["responses"]] for row in rows] == texts_of(model, PROMPTS[:2])
    assert set(rows[0]["responses"][0]) == {"text", "logp", "tokens", "finished"}


def test_a_text_file_has_a_prompt_a_line(generate: Any, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS) + "\n")
    _, out, _ = generate("--prompts", tmp_path / "prompts.txt", "--json")
    assert [row["prompt"] for row in json.loads(out)] == PROMPTS


def standard_input(content: bytes) -> Any:
    return SimpleNamespace(buffer=io.BytesIO(content))


def test_a_dash_reads_one_prompt_from_standard_input(generate: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", standard_input(b"The film\nwas\n"))
    _, out, _ = generate("--prompt", "-", "--json")
    assert [row["prompt"] for row in json.loads(out)] == ["The film\nwas"]
    monkeypatch.setattr("sys.stdin", standard_input(b"\xff\xfe"))
    code, _, err = generate("--prompt", "-")
    assert code == 2 and "standard input: expected UTF-8 text; byte 0 is not" in err


# ------------------------------------------------------------------------------------------------------------------ chat


def test_a_model_with_a_template_gets_the_text_as_a_message(generate: Any, chat_model: Path) -> None:
    _, out, err = generate("--prompt", "Hi", "--json", use=chat_model)
    assert json.loads(out)[0]["prompt"] == [{"role": "user", "content": "Hi"}]
    assert "taken as a user's message (--no-chat" in err
    _, out, _ = generate("--prompt", "Hi", "--json", "--no-chat", use=chat_model)
    assert json.loads(out)[0]["prompt"] == "Hi"


def test_tiny_models_continue_text_unless_told(generate: Any) -> None:
    _, out, _ = generate("--prompt", "Hi", "--json", "--chat")
    assert json.loads(out)[0]["prompt"] == [{"role": "user", "content": "Hi"}]


def test_a_model_trained_here_on_plain_text_continues_text(generate: Any, chat_model: Path, tmp_path: Path) -> None:
    Policy.load(chat_model, device="cpu").save(tmp_path / "run" / "model")
    for form, wanted in (("plain", "Hi"), ("hh", [{"role": "user", "content": "Hi"}])):
        (tmp_path / "run" / "results.json").write_text(json.dumps({"data": {"format": form}}))
        for folder in (tmp_path / "run", tmp_path / "run" / "model"):
            _, out, _ = generate("--prompt", "Hi", "--json", use=folder)
            assert json.loads(out)[0]["prompt"] == wanted


def test_a_system_message_stands_first_once(generate: Any, chat_model: Path, tmp_path: Path) -> None:
    own = [{"role": "system", "content": "Be long."}, {"role": "user", "content": "Hi"}]
    path = prompt_file(tmp_path, [{"prompt": own[1:]}, {"prompt": own}])
    _, out, _ = generate("--prompts", path, "--system", "Be short.", "--json", use=chat_model)
    assert [row["prompt"][0]["content"] for row in json.loads(out)] == ["Be short.", "Be long."]
    assert [len(row["prompt"]) for row in json.loads(out)] == [2, 2]


def test_a_template_can_be_given(generate: Any, model: Path, tmp_path: Path) -> None:
    policy = Policy.load(model, device="cpu")
    policy.tokenizer.chat_template = None
    bare = policy.save(tmp_path / "bare")
    code, _, err = generate("--prompt", "Hi", "--chat", use=bare)
    assert code == 2 and "has no chat template" in err and "--chat-template FILE" in err
    (tmp_path / "chat.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
    code, _, _ = generate("--prompt", "Hi", "--chat", "--chat-template", tmp_path / "chat.jinja", use=bare)
    assert code == 0
    code, out, err = generate("--prompt", "Hi", "--json", use=bare)
    assert code == 0 and json.loads(out)[0]["prompt"] == "Hi" and "note" not in err


# -------------------------------------------------------------------------------------------------------------- sampling


def test_options_reach_the_sampler(generate: Any, model: Path) -> None:
    options = {"temperature": 0.7, "top_k": 20, "top_p": 0.9, "repetition_penalty": 1.2, "seed": 5}
    words = [word for name, value in options.items() for word in ("--" + name.replace("_", "-"), value)]
    _, out, _ = generate("--prompt", PROMPTS[0], "--n", 3, "--json", *words)
    assert [found["text"] for found in json.loads(out)[0]["responses"]] == texts_of(model, PROMPTS[:1], n=3, **options)[
        0
    ]


def test_a_stop_string_may_be_a_line_break(generate: Any, model: Path) -> None:
    free = texts_of(model, PROMPTS[:1], max_new_tokens=40)[0][0]
    word = free[10:12]
    _, out, _ = generate("--prompt", PROMPTS[0], "--stop", word, "--stop", "\\n", "--json", tokens=40)
    found = json.loads(out)[0]["responses"][0]
    assert found["text"] == free.split("\n")[0].split(word)[0] and found["finished"]


def test_greedy_is_the_same_for_every_seed(generate: Any) -> None:
    outs = {generate("--prompt", PROMPTS[0], "--temperature", 0, "--seed", seed)[1] for seed in (0, 1)}
    assert len(outs) == 1


# ------------------------------------------------------------------------------------------------------------- best of n


def test_the_best_come_first(generate: Any, model: Path) -> None:
    _, out, err = generate("--prompt", PROMPTS[0], "--best-of", 6, "--reward", "length", "--json")
    row = json.loads(out)[0]
    rewards = [found["reward"] for found in row["responses"]]
    assert rewards == sorted(rewards, reverse=True)
    assert sorted(found["text"] for found in row["responses"]) == sorted(texts_of(model, PROMPTS[:1], n=6)[0])
    assert row["kl_bound"] == pytest.approx(0.9584, abs=1e-4)
    assert "best of 6 is at most 0.96 nats" in err


def test_only_the_best_are_shown(generate: Any, model: Path) -> None:
    _, out, _ = generate("--prompt", PROMPTS[0], "--best-of", 6, "--reward", "length")
    longest = max(texts_of(model, PROMPTS[:1], n=6)[0], key=lambda text: len(text.split()))
    assert out == longest + "\n"
    _, out, _ = generate("--prompt", PROMPTS[0], "--best-of", 6, "--n", 2, "--reward", "length")
    assert out.count("best of 6") == 2


def test_a_reward_alone_scores_without_choosing(generate: Any, model: Path) -> None:
    _, out, _ = generate("--prompt", PROMPTS[0], "--n", 3, "--reward", "length", "--json")
    row = json.loads(out)[0]
    assert [found["text"] for found in row["responses"]] == texts_of(model, PROMPTS[:1], n=3)[0]
    assert [found["reward"] for found in row["responses"]] == [len(found["text"].split()) for found in row["responses"]]
    assert "kl_bound" not in row


def test_a_reward_sees_the_question_as_it_was_given(generate: Any, chat_model: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def fn(prompt, response):\n    return float(prompt == 'Hi')\n")
    _, out, _ = generate("--prompt", "Hi", "--reward", f"{tmp_path}/mine.py:fn", "--json", use=chat_model)
    assert json.loads(out)[0]["responses"][0]["reward"] == 1.0


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("1 / 0", "raised ZeroDivisionError"),
        ("float('nan')", "expected a finite number; got nan"),
        ("None", "expected a number; got NoneType"),
    ],
)
def test_a_broken_reward_costs_one_line(generate: Any, tmp_path: Path, body: str, message: str) -> None:
    (tmp_path / "mine.py").write_text(f"def fn(prompt, response):\n    return {body}\n")
    code, out, err = generate("--prompt", "Hi", "--best-of", 2, "--reward", f"{tmp_path}/mine.py:fn", "--quiet")
    assert (code, out) == (2, "")
    assert message in err and err.startswith("paperworks: error: ") and err.count("\n") == 1


def test_a_reward_of_the_wrong_count_costs_one_line(generate: Any, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def fn(prompts, responses):\n    return [1.0]\n")
    code, _, err = generate("--prompt", "Hi", "--best-of", 2, "--reward", f"{tmp_path}/mine.py:fn", "--quiet")
    assert code == 2 and "expected 2 numbers, one a response; got 1" in err


# ---------------------------------------------------------------------------------------------------------------- output


def test_json_lines_are_written_whole(generate: Any, tmp_path: Path) -> None:
    path = tmp_path / "new" / "out.jsonl"
    code, out, err = generate("--prompt", *PROMPTS, "--out", path)
    assert (code, out) == (0, "") and f"3 prompts answered in {path}" in err
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["prompt"] for row in rows] == PROMPTS
    code, _, err = generate("--prompt", "Hi", "--out", path)
    assert code == 2 and "exists; give another file or --overwrite" in err
    assert generate("--prompt", "Hi", "--out", path, "--overwrite")[0] == 0
    assert len(path.read_text().splitlines()) == 1


def test_what_is_written_can_be_read_as_prompts_again(generate: Any, chat_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    generate("--prompt", *PROMPTS, "--out", path, use=chat_model)
    _, out, _ = generate("--prompts", path, "--json", use=chat_model)
    assert json.loads(out) == [json.loads(line) for line in path.read_text().splitlines()]


def test_an_interrupt_keeps_the_prompts_that_are_done(
    generate: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = generate_cmd._Writer.add

    def add_and_interrupt(writer: Any, index: int, samples: Any) -> None:
        add(writer, index, samples)
        raise KeyboardInterrupt

    monkeypatch.setattr(generate_cmd._Writer, "add", add_and_interrupt)
    path = tmp_path / "out.jsonl"
    code, _, err = generate("--prompt", *PROMPTS, "--out", path)
    assert code == 130 and "1 of 3 prompts are answered in" in err
    (row,) = [json.loads(line) for line in path.read_text().splitlines()]
    assert row["prompt"] in PROMPTS and row["responses"][0]["tokens"] > 0


def test_text_grows_on_a_terminal(generate: Any, terminal: None, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pieces: list[str] = []
    grow = generate_cmd._LiveText._grow
    monkeypatch.setattr(generate_cmd._LiveText, "_grow", lambda live, text: (pieces.append(text), grow(live, text)))
    _, out, _ = generate("--prompt", PROMPTS[0])
    text = texts_of(model, PROMPTS[:1])[0][0]
    assert out == generate_cmd._safe(text) + "\n"
    assert len(set(pieces)) > 3 and pieces[-1] == text


def test_several_samples_are_headed_on_a_terminal(generate: Any, terminal: None, model: Path) -> None:
    _, out, _ = generate("--prompt", PROMPTS[0], "--n", 2)
    for number, text in enumerate(texts_of(model, PROMPTS[:1], n=2)[0], 1):
        assert f"## {number}/2, " in out and generate_cmd._safe(text) in out


def test_live_text_holds_back_what_may_still_change(capsys: pytest.CaptureFixture[str]) -> None:
    live = generate_cmd._LiveText(["END", "\\n\\n"])
    shown = []
    for text in ("caf\ufffd", "café", "café E", "café EN", "café ENd\n", "café ENd\nx"):
        live.show(text)
        shown.append(capsys.readouterr().out)
    assert shown == ["caf", "é", " ", "", "ENd", "\nx"]
    live.end("café ENd\nx.")
    assert capsys.readouterr().out == ".\n"


def test_control_characters_do_not_reach_a_terminal(terminal: None) -> None:
    assert generate_cmd._safe("a\x1b[31mb\x07\n\tc\x9b2J\x7f") == "a[31mb\n\tc2J"


def test_a_pipe_gets_text_as_it_is() -> None:
    assert generate_cmd._safe("a\x1b[31mb") == "a\x1b[31mb"


# -------------------------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give something to answer: --prompt TEXT or --prompts FILE"),
        (["--prompt", "a", "--prompts", "f"], "not allowed with"),
        (["--prompt", "a", "--n", "0"], "--n 0: expected at least 1"),
        (["--prompt", "a", "--n", "1.5"], "--n: invalid int value"),
        (["--prompt", "a", "--best-of", "4"], "--best-of needs a reward to choose by"),
        (["--prompt", "a", "--best-of", "2", "--n", "3", "--reward", "length"], "--n 3: more than the 2 responses"),
        (["--prompt", "a", "--temperature", "0", "--n", "2"], "--temperature 0 is greedy"),
        (["--prompt", "a", "--temperature", "-1"], "temperature=-1.0: expected 0 (greedy) or more"),
        (["--prompt", "a", "--top-p", "2"], "top_p=2.0"),
        (["--prompt", "a", "--stop", ""], "non-empty strings"),
        (["--prompt", "a", "--no-chat", "--system", "s"], "--system is a chat message"),
        (["--prompt", "a", "--limit", "3"], "--limit goes with --prompts FILE"),
        (["--prompt", "a", "--reward", "sentimnt"], "unknown reward 'sentimnt' (did you mean 'sentiment'?)"),
        (["--prompt", "a", "--reward", "missing.py:fn"], "missing.py: no such file"),
        (["--prompt", "a", "--temprature", "1"], "unknown option --temprature (did you mean '--temperature'?)"),
        (["--prompt", "a", "--device", "tpu9"], "'tpu9'"),
        (["--prompts", "missing.jsonl"], "missing.jsonl"),
        (["--prompt", "a", "--chat-template", "missing.jinja"], "missing.jinja: cannot be read"),
    ],
)
def test_mistakes_cost_one_line(generate: Any, arguments: list[str], message: str) -> None:
    code, out, err = generate(*arguments)
    assert (code, out) == (2, "")
    assert message in err and err.count("\n") == 1


def test_a_missing_model_costs_one_line(generate: Any, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "--prompt", "a"]) == 2
    assert "give the model to sample from: --model" in capsys.readouterr().err
    code, _, err = generate("--prompt", "a", use=Path("nowhere"))
    assert code == 2 and "no model called 'nowhere'" in err


def test_a_damaged_model_costs_one_line(generate: Any, model: Path, tmp_path: Path) -> None:
    (tmp_path / "damaged").mkdir()
    for path in model.iterdir():
        content = path.read_bytes()
        (tmp_path / "damaged" / path.name).write_bytes(content[:1000] if path.suffix == ".safetensors" else content)
    code, _, err = generate("--prompt", "a", use=tmp_path / "damaged")
    assert code == 2 and "is damaged or incomplete" in err and err.count("\n") == 1


def test_a_prompt_without_room_names_its_line(generate: Any, tmp_path: Path) -> None:
    path = prompt_file(tmp_path, [{"prompt": "short"}, {"prompt": "The film was " * 100}])
    code, _, err = generate("--prompts", path, "--quiet")
    assert code == 2 and err.count("\n") == 1
    assert f"{path}:2: the prompt has " in err and "the context of the model is 128" in err
    code, _, err = generate("--prompt", "short", "The film was " * 100, "--quiet")
    assert code == 2 and "prompt 2 has " in err


def test_bad_rows_name_their_line(generate: Any, tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "a"}\n{"prompt": 3}\n')
    code, _, err = generate("--prompts", path, "--quiet")
    assert code == 2 and f"{path}:2: field 'prompt'" in err
    path.write_text("")
    code, _, err = generate("--prompts", path, "--quiet")
    assert code == 2 and "0 rows" in err


def test_an_output_that_is_a_folder_is_refused(generate: Any, tmp_path: Path) -> None:
    code, _, err = generate("--prompt", "a", "--out", tmp_path)
    assert code == 2 and "is a folder; give a file" in err


def test_help_says_when_a_text_is_a_message(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "--help"]) == 0
    assert "default: --chat where the model has a template" in " ".join(capsys.readouterr().out.split())
