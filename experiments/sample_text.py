"""Let SmolLM2 write the English text that ships: for statistics, and held out for perplexity.

    python experiments/sample_text.py

Seeded; about ten minutes on two cores. Each piece answers a request about one topic, sampled at
temperature 1 from the whole vocabulary, so that the text follows the model's own distribution.
"""

from __future__ import annotations

import random

from metake.console import command
from metake.files import write_text
from metake.options import Parser, at_least, show_help


def options() -> Parser:
    """Options of the script."""
    parser = Parser(description=__doc__)
    parser.add_argument("--model", default="smollm2", help="the model that writes; default: %(default)s")
    parser.add_argument(
        "--tokens", type=at_least(1), default=66_000, help="how many to write; default: %(default)s"
    )
    parser.add_argument("--held-out", type=at_least(0), default=5_500, help="of these, how many are held out")
    parser.add_argument("--length", type=at_least(1), default=200, help="tokens per piece")
    parser.add_argument("--rows", type=at_least(1), default=48, help="texts per pass; default: %(default)s")
    parser.add_argument(
        "--seed", type=at_least(0), default=0, help="of all that is drawn; default: %(default)s"
    )
    return parser


if __name__ == "__main__":
    show_help(options)

import torch
from tqdm import tqdm

from metake.models.load import load
from metake.texts import HELD_OUT, TEXT

TOPICS = [
    "the history of Portugal",
    "the moons of Jupiter",
    "how bread is baked",
    "the music of Bach",
    "chess openings",
    "the human heart",
    "rivers of Africa",
    "the invention of the telephone",
    "rules of football",
    "Greek myths",
    "how glaciers form",
    "the painter Vermeer",
    "wheat farming",
    "the French Revolution",
    "volcanoes",
    "jazz",
    "bees",
    "the city of Vienna",
    "quantum physics",
    "Shakespeare's plays",
    "railway engineering",
    "coral reefs",
    "tea in Japan",
    "the Roman army",
    "vaccines",
    "the economy of Brazil",
    "steam engines",
    "the Silk Road",
    "opera",
    "whales",
    "the atom",
    "medieval castles",
    "the Amazon forest",
    "cricket",
    "the printing press",
    "earthquakes",
    "the Olympic Games",
    "owls",
    "the Ottoman Empire",
    "photography",
    "sailing ships",
    "the life of Marie Curie",
    "deserts",
    "cheese",
    "the Moon landing",
    "the Nobel Prize",
    "horses",
    "the city of Cairo",
    "electric cars",
    "Mozart",
    "the human eye",
    "Canada",
    "the Vikings",
    "mathematics in India",
    "bridges",
    "the solar system",
    "cinema in Italy",
    "the cold war",
    "penguins",
    "the violin",
    "the United Nations",
    "rice",
    "the city of New York",
    "Darwin",
    "robots",
    "the Alps",
    "parliament",
    "tennis",
    "dinosaurs",
    "the Bible",
    "newspapers",
    "gold",
    "the Arctic",
    "mobile phones",
    "Picasso",
    "banks",
    "the city of London",
    "basketball",
    "coffee",
    "the Great Wall",
    "hospitals",
    "novels of Dickens",
    "insects",
    "the Pacific Ocean",
    "airports",
    "Napoleon",
    "the brain",
    "universities",
    "Spanish grammar",
    "the weather",
    "cooking with eggs",
    "computers",
    "Mexico",
    "the law",
    "trees",
    "the city of Rome",
    "submarines",
    "poetry",
    "Einstein",
    "the stock market",
    "lions",
    "ancient Egypt",
    "radio",
    "swimming",
    "the Hindu festivals",
    "oil",
    "sleep",
    "museums in Paris",
    "the guitar",
    "Australia",
    "the alphabet",
]
FORMS = (
    "Write an encyclopedia article about {}.",
    "Write a short news report about {}.",
    "Tell me some facts about {}, with names, places and dates.",
    "Write a page of a book in which people talk about {}.",
)


@command("sample_text")
def main() -> None:
    args = options().parse_args()
    torch.manual_seed(args.seed)
    loaded = load(args.model, chat=None)
    tokenizer, model = loaded.tokenizer, loaded.model
    tokenizer.padding_side = "left"
    requests = [form.format(topic) for topic in TOPICS for form in FORMS]
    random.Random(args.seed).shuffle(requests)
    pieces: list[str] = []
    count = 0
    with tqdm(total=args.tokens, unit="token", disable=None) as bar:
        for start in range(0, len(requests), args.rows):
            prompts = [
                tokenizer.apply_chat_template(
                    [{"role": "user", "content": request}], tokenize=False, add_generation_prompt=True
                )
                for request in requests[start : start + args.rows]
            ]
            coded = tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False)
            out = model.generate(
                **coded.to(loaded.device),
                max_new_tokens=args.length,
                do_sample=True,
                temperature=1.0,
                top_k=0,
                top_p=1.0,
                pad_token_id=tokenizer.pad_token_id,
            )
            for row in out[:, coded["input_ids"].shape[1] :]:
                piece = " ".join(tokenizer.decode(row, skip_special_tokens=True).split(" ")).strip()
                pieces.append(piece)
                size = len(tokenizer(piece).input_ids)
                count += size
                bar.update(size)
            if count >= args.tokens:
                break
    held: list[str] = []
    size = 0
    while size < args.held_out:
        held.append(pieces.pop())
        size += len(tokenizer(held[-1]).input_ids)
    write_text(TEXT, "\n\n".join(pieces) + "\n")
    write_text(HELD_OUT, "\n\n".join(held) + "\n")
    print(f"{TEXT}: {count - size} tokens; {HELD_OUT}: {size} tokens")


if __name__ == "__main__":
    main()
