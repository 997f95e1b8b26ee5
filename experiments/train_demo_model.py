"""Train a demo model on the synthetic world and write it where `--model demo...` finds it.

    python experiments/train_demo_model.py --arch gpt2      # or gptj, llama
    python experiments/train_demo_model.py --arch qwen3 --people 160 --world-seed 1 --out models/qwen3

One seeded run on CPU or GPU; about 25 minutes on two cores with 640 people. Writes weights (safetensors,
fp32), tokenizer and `training.json` with the recall of every fact in every wording; for a world other than
that of the demo models also `records.json` and `dev.json`, its test and development records.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from metake.console import command
from metake.options import Parser, at_least, output_folder, positive, show_help

FOLDERS = {"gpt2": "demo", "gptj": "demo-gptj", "llama": "demo-llama"}
VOCABULARY, POSITIONS = 1024, 512
_NO_DROPOUT = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
_GPT2 = {"n_embd": 128, "n_layer": 6, "n_head": 4, "n_positions": POSITIONS, **_NO_DROPOUT}


def _llama(width: int, inner: int, layers: int, heads: int, kv_heads: int, **rest: Any) -> dict[str, Any]:
    """Numbers of a configuration with Llama's names."""
    return {
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "max_position_embeddings": POSITIONS,
        **rest,
    }


CONFIGURATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2Config", _GPT2),
    "gptj": ("GPTJConfig", {**_GPT2, "rotary_dim": 16, "tie_word_embeddings": False}),
    "llama": ("LlamaConfig", _llama(128, 384, 6, 4, 4, tie_word_embeddings=True)),
    "qwen3": ("Qwen3Config", _llama(96, 288, 8, 6, 2, head_dim=16, tie_word_embeddings=True)),
    "mistral": ("MistralConfig", _llama(112, 320, 5, 4, 2, tie_word_embeddings=False, sliding_window=None)),
    "gpt_neox": (
        "GPTNeoXConfig",
        {
            "hidden_size": 128,
            "intermediate_size": 512,
            "num_hidden_layers": 7,
            "num_attention_heads": 4,
            "max_position_embeddings": POSITIONS,
        },
    ),
}


def options() -> Parser:
    """Options of the script."""
    parser = Parser(description=__doc__)
    parser.add_argument("--arch", choices=sorted(CONFIGURATIONS), required=True, help="family of the model")
    parser.add_argument(
        "--people", type=at_least(2), default=640, help="of the synthetic world; default: %(default)s"
    )
    parser.add_argument(
        "--world-seed", type=at_least(0), default=0, help="of names and facts; default: %(default)s"
    )
    parser.add_argument("--steps", type=at_least(1), default=3000, help="of training; default: %(default)s")
    parser.add_argument("--rows", type=at_least(1), default=32, help="texts per step; default: %(default)s")
    parser.add_argument(
        "--length", type=at_least(1), default=96, help="tokens per text; default: %(default)s"
    )
    parser.add_argument(
        "--lr", type=positive, default=3e-3, help="largest learning rate; default: %(default)s"
    )
    parser.add_argument(
        "--seed", type=at_least(0), default=0, help="of all that is drawn; default: %(default)s"
    )
    parser.add_argument("--threads", type=at_least(1), help="of torch; default: as torch chooses")
    parser.add_argument(
        "--out",
        type=output_folder,
        help="folder to write (default: the package's assets, for the demo models)",
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda; default: %(default)s")
    return parser


if __name__ == "__main__":
    show_help(options)

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from tqdm import tqdm
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedTokenizerFast

from metake.data.world import World
from metake.errors import MetakeError
from metake.models.editable import EditableModel
from metake.provenance import provenance

ASSETS = Path(__file__).resolve().parents[1] / "metake" / "assets"


def train_tokenizer(world: World, with_bos: bool) -> PreTrainedTokenizerFast:
    """A byte-level BPE; the Llama-style model gets one that starts every text with BOS."""
    end, begin = "<|endoftext|>", "<s>"
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = [end, begin] if with_bos else [end]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([world.text(20_000, seed=1)], trainer)
    if with_bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{begin} $A", special_tokens=[(begin, tokenizer.token_to_id(begin))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=end,
        pad_token=end,
        bos_token=begin if with_bos else end,
        model_max_length=POSITIONS,
    )


def configuration(arch: str, tokenizer: PreTrainedTokenizerFast) -> PretrainedConfig:
    """Configuration of a model of a family: 5 to 8 layers, about a million parameters."""
    name, numbers = CONFIGURATIONS[arch]
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    return getattr(transformers, name)(vocab_size=VOCABULARY, **numbers, **ids)


def batches(
    world: World, tokenizer: PreTrainedTokenizerFast, rows: int, length: int, seed: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Endless `(ids, weights)`, each `rows x length`; every row starts at the start of a line.

    Weights are those of the loss: answers count fully, the rest little, since which person a
    question is about cannot be predicted.
    """
    stream = world.lines(seed)
    newline = tokenizer("\n", add_special_tokens=False).input_ids
    begin = tokenizer("").input_ids
    cache: dict[str, list[int]] = {}

    def encode(text: str) -> list[int]:
        if text not in cache:
            cache[text] = tokenizer(text, add_special_tokens=False).input_ids
        return cache[text]

    while True:
        ids, weights = [], []
        for _ in range(rows):
            row, weight = list(begin), [0.0] * len(begin)
            while len(row) < length:
                text, answer = next(stream)
                head = encode(text) if not answer else tokenizer(text, add_special_tokens=False).input_ids
                tail = (encode(answer) if answer else []) + newline
                row += head + tail
                weight += [0.1] * len(head) + [1.0] * len(tail)
            ids.append(row[:length])
            weights.append(weight[:length])
        yield torch.tensor(ids), torch.tensor(weights)


@torch.no_grad()
def recall(model: torch.nn.Module, tokenizer: PreTrainedTokenizerFast, world: World) -> dict[str, float]:
    """Share of facts whose whole answer (and line end) is the greedy one, per wording."""
    device = next(model.parameters()).device
    right = {}
    for wording in range(4):
        hits = []
        for start in range(0, len(world.facts), 256):
            facts = world.facts[start : start + 256]
            prompts = [tokenizer(f.ask(wording)).input_ids for f in facts]
            answers = [tokenizer(f" {f.value}\n", add_special_tokens=False).input_ids for f in facts]
            width = max(len(p) + len(a) for p, a in zip(prompts, answers, strict=True))
            ids = torch.zeros(len(facts), width, dtype=torch.long)
            for row, (p, a) in enumerate(zip(prompts, answers, strict=True)):
                ids[row, : len(p) + len(a)] = torch.tensor(p + a)
            best = model(ids.to(device)).logits.argmax(-1).cpu()
            for row, (p, a) in enumerate(zip(prompts, answers, strict=True)):
                hits.append(best[row, len(p) - 1 : len(p) + len(a) - 1].tolist() == a)
        right[f"wording {wording}"] = sum(hits) / len(hits)
    return right


@command("train_demo_model")
def main() -> None:
    args = options().parse_args()
    torch.set_num_threads(args.threads or torch.get_num_threads())
    torch.manual_seed(args.seed)
    random.seed(args.seed)

    if args.out is None and (args.arch not in FOLDERS or (args.people, args.world_seed) != (640, 0)):
        raise MetakeError("--out: name a folder for a model that is none of the demo models")
    out = args.out or ASSETS / FOLDERS[args.arch]
    world = World(args.people, args.world_seed)
    tokenizer = train_tokenizer(world, with_bos=args.arch in ("llama", "mistral"))
    model = AutoModelForCausalLM.from_config(configuration(args.arch, tokenizer)).to(args.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=args.lr, total_steps=args.steps, pct_start=0.1
    )
    started = time.time()
    bar = tqdm(range(args.steps), desc=args.arch, disable=None)
    stream = batches(world, tokenizer, args.rows, args.length, args.seed)
    for step in bar:
        ids, weights = (t.to(args.device) for t in next(stream))
        logits = model(ids).logits[:, :-1]
        nll = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1).float(), ids[:, 1:].flatten(), reduction="none"
        )
        weight = weights[:, 1:].flatten()
        loss = (nll * weight).sum() / weight.sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 20 == 0:
            answers = weight == 1
            bar.set_postfix(loss=f"{loss.item():.3f}", answers=f"{nll[answers].mean().item():.3f}")

    model.eval()
    report = {
        **provenance(out.name, EditableModel(model), "none: trained from nothing"),
        "arch": args.arch,
        "steps": args.steps,
        "seed": args.seed,
        "parameters": sum(p.numel() for p in model.parameters()),
        "facts": len(world.facts),
        "seconds": round(time.time() - started),
        "recall": recall(model, tokenizer, world),
    }
    out.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    (out / "training.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if args.out is not None:
        for name, records in zip(("records.json", "dev.json"), world.records(), strict=True):
            (out / name).write_text(json.dumps(records, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
