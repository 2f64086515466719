"""The commands of the README, in the order in which a new user types them."""

from __future__ import annotations

import json
import shlex

import pytest

from tests.conftest import Paddock

SENTENCE = "The old elephant"


def test_main_job_from_launch_to_stop(paddock: Paddock) -> None:
    """A model is launched, generates, stands beside a second one, and `stop` leaves nothing."""
    launched = paddock.run(
        *("launch", "--model-name", "tiny-mixtral"),
        *("--model-format", "ggufv2", "--quantization", "Q4_K_M"),
    )
    assert launched.returncode == 0, launched.stderr
    assert launched.stdout == "tiny-mixtral\n"
    assert "gateway started in the background" in launched.stderr
    assert "ready in" in launched.stderr

    little = paddock.ok(
        *("launch", "--model-engine", "llama.cpp", "--model-name", "tiny-mixtral"),
        *("--size-in-billions", "0_004", "--model-format", "ggufv2", "--quantization", "Q2_K"),
        *("--model-uid", "little"),
    )
    assert little == "little\n"
    models = {model["model_uid"]: model for model in paddock.json("list")}
    assert {uid: model["state"] for uid, model in models.items()} == {
        "tiny-mixtral": "ready",
        "little": "ready",
    }
    assert models["little"]["plan"]["quantization"] == "Q2_K"

    arguments = (
        "generate",
        "--model-uid",
        "tiny-mixtral",
        "--temperature",
        "0",
        "--max-tokens",
        "40",
    )
    text = paddock.ok(*arguments, SENTENCE)
    assert len(text.split()) > 10
    assert text == paddock.ok(*arguments, SENTENCE)
    assert (
        paddock.ok("run", "tiny-mixtral", "--temperature", "0", "--max-tokens", "40", SENTENCE)
        == text
    )

    assert paddock.ok("terminate", "--model-uid", "little") == "little is terminated\n"
    assert [model["model_uid"] for model in paddock.json("list")] == ["tiny-mixtral"]
    assert not [line for line in paddock.processes() if '"alias": "little"' in line]

    stopped = paddock.json("stop")
    assert stopped["models"] == ["tiny-mixtral"]
    assert stopped["ended_by_force"] == []
    assert paddock.processes() == []


def test_run_launches_what_is_not_launched(shared_paddock: Paddock, tiny: str) -> None:
    """`run` with an id that nobody has launches the model first, then generates."""
    done = shared_paddock.run("run", "tiny-mixtral", "-u", "by-run", "--max-tokens", "5", SENTENCE)
    assert done.returncode == 0, done.stderr
    assert "ready in" in done.stderr
    assert done.stdout.strip()
    shared_paddock.ok("terminate", "-u", "by-run")


def test_prompt_comes_from_a_pipe(shared_paddock: Paddock, tiny: str) -> None:
    """Without a prompt, `generate` reads it from stdin; an empty one is refused."""
    arguments = ("generate", "-u", tiny, "--temperature", "0", "--max-tokens", "8")
    piped = shared_paddock.ok(*arguments, text=SENTENCE)
    assert piped == shared_paddock.ok(*arguments, SENTENCE)
    assert shared_paddock.run(*arguments).returncode == 2


def test_chat_answers_with_the_models_own_template(shared_paddock: Paddock, tiny: str) -> None:
    """`chat` streams an answer, and `--json` gives the engine's own."""
    question = "What does a lion eat?"
    arguments = ("chat", "-u", tiny, "--temperature", "0", "--max-tokens", "30", question)
    text = shared_paddock.ok(*arguments)
    answer = shared_paddock.json(*arguments)
    assert answer["choices"][0]["message"]["content"].strip() == text.strip()
    assert answer["model"] == tiny


def test_dry_run_prints_the_plan_and_changes_nothing(paddock: Paddock) -> None:
    """`--dry-run` starts no process and writes no file, with and without `--json`."""
    arguments = ("launch", "--model-name", "mixtral-v0.1", "--model-format", "ggufv2")
    arguments += ("--quantization", "Q4_K_M", "--dry-run")
    text = paddock.ok(*arguments)
    assert "mixtral-8x7b-v0.1.Q4_K_M.gguf" in text
    assert "26.44 GB" in text
    plan = json.loads(paddock.ok(*arguments, "--json"))
    assert plan["engine"] == "llama.cpp"
    assert plan["weights"]["files"][0]["size_bytes"] == 26_440_000_000
    assert not paddock.home.exists()


def test_what_does_not_fit_is_planned_smaller_with_fit(paddock: Paddock) -> None:
    """All of the context for each of 256 requests fits nowhere: refused, with what fits."""
    asked = ("launch", "llama-3.1-instruct", "-s", "8", "-f", "ggufv2", "--dry-run")
    large = ("-c", "131072", "--n_parallel", "256", "--repack", "true")
    refused = paddock.run(*asked, *large)
    assert refused.returncode == 2
    assert "--force launches it all the same" in refused.stderr
    error = json.loads(paddock.run(*asked, *large, "--json").stdout)["error"]
    assert error["code"] == "NoRoom"
    assert error["used"]["other processes"] > 0
    assert not paddock.json(*asked, *large, "--force")["memory"]["fits"]
    if error["commands"]:  # this machine has room for the model at all
        plan = paddock.json(*asked, *large, "--fit")
        assert plan["memory"]["fits"]
        assert any(reason.startswith("to fit") for reason in plan["reasons"])
        words = shlex.split(error["commands"][0])[1:]
        assert paddock.json(*words, "--dry-run")["memory"]["fits"]


def test_plans_need_neither_the_engine_nor_the_gpu(paddock: Paddock) -> None:
    """What is to be installed first is said; a launch on a GPU that is not there is refused."""
    asked = ("launch", "qwen2.5-instruct", "-en", "vllm", "--assume-gpu", "24GB")
    plan = paddock.json(*asked, "--dry-run")
    assert (plan["install"], plan["size"]) == ("paddock engine install vllm", "14")
    assert plan["memory"]["free_bytes"] == 24 * 10**9
    assert "first      paddock engine install vllm" in paddock.ok(*asked, "--dry-run")
    assert paddock.run("estimate", "qwen2.5-instruct", "--assume-gpu", "much").returncode == 2
    done = paddock.run("estimate", "qwen2.5-instruct", "-f", "gptq", "--assume-gpu", "8GB")
    assert "GPU 0 (assumed GPU) has 8.00 GB" in done.stdout
    assert "first: paddock engine install" in done.stderr
    refused = paddock.run(*asked)
    assert refused.returncode == 2
    assert "for plans only" in refused.stderr


def test_estimate_agrees_with_the_card(paddock: Paddock) -> None:
    """The weights of every quantization are the card's file sizes."""
    rows = paddock.json("estimate", "mixtral-v0.1", "-f", "ggufv2", "-c", "4096")["rows"]
    weights = {row["quantization"]: round(row["weights_bytes"] / 1e9, 2) for row in rows}
    assert weights == {
        "Q2_K": 15.64,
        "Q3_K_M": 20.36,
        "Q4_0": 26.44,
        "Q4_K_M": 26.44,
        "Q5_0": 32.23,
        "Q5_K_M": 32.23,
        "Q6_K": 38.38,
        "Q8_0": 49.62,
    }
    assert {row["cache_bytes"] for row in rows} == {4096 * 131072}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("launch", "tiny-mixtrl"), "did you mean tiny-mixtral"),
        (("launch", "tiny-mixtral", "-f", "ggufv3"), "did you mean ggufv2"),
        (("launch", "tiny-mixtral", "-s", "7"), "unknown size '7'"),
        (("launch", "tiny-mixtral", "-s", "big"), "size 'big'"),
        (("launch", "tiny-mixtral", "-q", "Q4KM"), "did you mean Q4_K_M"),
        (("launch", "tiny-mixtral", "-en", "lama.cpp"), "did you mean llama.cpp"),
        (("launch", "tiny-mixtral", "--n_ctxx", "5"), "did you mean n_ctx"),
        (("launch", "tiny-mixtral", "--n-ctx", "many"), "n_ctx"),
        (("launch", "tiny-mixtral", "-u", "a b"), "model id 'a b'"),
        (("launch", "tiny-mixtral", "-u", "../up"), "model id '../up'"),
        (("launch", "tiny-mixtral", "-u", "tiny"), "in use"),
        (("launch", "tiny-mixtral", "-c", "4096"), "2048 at most"),
        (("launch", "tiny-mixtral", "-mp", "/nowhere/x.gguf"), "/nowhere/x.gguf"),
        (("launch", "mixtral-v0.1", "-f", "pytorch", "-en", "vLLM"), "paddock engine install vllm"),
        (("launch", "tiny-mixtral", "--node", "moon"), "unknown node 'moon'"),
        (("launch", "tiny-mixtral", "--download-hub", "hugface"), "did you mean huggingface"),
        (("launch",), "--model-name NAME"),
        (("lunch",), "did you mean launch"),
    ],
)
def test_bad_input_is_refused_and_nothing_changes(
    shared_paddock: Paddock, tiny: str, arguments: tuple[str, ...], says: str
) -> None:
    """Each wrong value gets an exit code, one line that names it, and leaves no model behind."""
    before = [model["model_uid"] for model in shared_paddock.client().instances()]
    done = shared_paddock.run(*arguments)
    assert done.returncode == (4 if "no engine can serve" in done.stderr else 2)
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert [model["model_uid"] for model in shared_paddock.client().instances()] == before


@pytest.mark.parametrize("command", ["generate", "terminate", "logs", "describe"])
def test_unknown_model_id_names_near_ones(shared_paddock: Paddock, tiny: str, command: str) -> None:
    """An id that nobody launched gets exit code 3 and the nearest that was launched."""
    prompt = ["hi"] if command == "generate" else []
    name = ["tinny"] if command == "describe" else ["-u", "tinny"]
    done = shared_paddock.run(command, *name, *prompt)
    assert done.returncode == 3
    assert "did you mean tiny?" in done.stderr


def test_errors_come_as_json(shared_paddock: Paddock, tiny: str) -> None:
    """With `--json` an error is an object on stdout, with its code and fields."""
    done = shared_paddock.run("launch", "tiny-mixtrl", "--json")
    error = json.loads(done.stdout)["error"]
    assert error["code"] == "UnknownName"
    assert error["value"] == "tiny-mixtrl"
    assert error["close"][0] == "tiny-mixtral"
    assert done.stderr == ""
