"""Task files as a user writes them for lm-eval, on data of the demo world: of every kind that there is."""

import json
from pathlib import Path

from rna.settings.fields import BUILTIN

CHOICE = """
task: own_choice
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder}/choice.jsonl, train: {folder}/shown.jsonl}}}}
test_split: test
fewshot_split: train
output_type: multiple_choice
doc_to_text: "{{{{asked}}}}\\nAnswer:"
doc_to_choice: "{{{{options}}}}"
doc_to_target: right
{shots}
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
  - {{metric: acc_norm, aggregation: mean, higher_is_better: true}}
  - {{metric: mcc, aggregation: matthews_corrcoef, higher_is_better: true}}
"""
LETTERED = """
include: choice.yaml
task: own_lettered
test_split: train
doc_to_text: !function words.lettered
doc_to_choice: ["A", "B", "C", "D"]
num_fewshot: 0
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
"""
WRITTEN = """
include: choice.yaml
task: own_written
output_type: generate_until
doc_to_text: !function words.lettered
doc_to_choice: null
doc_to_target: "{{['A', 'B', 'C', 'D'][right]}}"
num_fewshot: 0
generation_kwargs: {until: ["\\n"], do_sample: false, max_gen_toks: 6}
filter_list:
  - {name: first, filter: [{function: regex, regex_pattern: "([A-D])"}, {function: take_first}]}
  - {name: plain, filter: [{function: take_first}]}
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
"""
LAST = """
include: choice.yaml
task: own_last
output_type: loglikelihood
doc_to_choice: null
doc_to_target: " {{options[right]}}"
num_fewshot: 0
metric_list:
  - {metric: perplexity, aggregation: perplexity, higher_is_better: false}
  - {metric: acc, aggregation: mean, higher_is_better: true}
"""
ROLLING = """
include: choice.yaml
task: own_rolling
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_choice: null
doc_to_target: "{{asked}}"
num_fewshot: 0
metric_list: [{metric: word_perplexity}, {metric: bits_per_byte}]
"""
GROUP = """
group: own_group
task: [own_choice, own_lettered]
aggregate_metric_list:
  - {metric: acc, aggregation: mean, weight_by_size: %s}
"""
WORDS = '''
def lettered(doc):
    """MMLU's words."""
    lines = "".join(f"{letter}. {choice}\\n" for letter, choice in zip("ABCD", doc["options"]))
    head = f"The following are multiple choice questions (with answers) about {' '.join(doc['about'].split('_'))}."
    return f"{head}\\n\\n{doc['asked']}\\n{lines}Answer:"
'''


def rows(first: int, count: int) -> list[dict[str, object]]:
    """The demo's questions under other names of columns, with neither a subject nor a half; each tenth with another
    right answer, so that not all are answered right."""
    found = [json.loads(line) for line in (BUILTIN / "questions.jsonl").read_text(encoding="utf-8").splitlines()]
    return [
        {
            "about": row["subject"],
            "asked": row["question"].strip(),
            "options": row["choices"],
            "right": (row["answer"] + (number % 10 == 0)) % 4,
        }
        for number, row in enumerate(found[first : first + count])
    ]


def written(folder: Path, *, count: int = 24, shots: int = 0, by_size: str = "true") -> Path:
    """A folder for `eval.include_path`, with its data."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, made in (("choice", rows(0, count)), ("shown", rows(300, 8))):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made))
    files = {
        "choice.yaml": CHOICE.format(folder=folder, shots=f"num_fewshot: {shots}" if shots else ""),
        "lettered.yaml": LETTERED,
        "written.yaml": WRITTEN,
        "last.yaml": LAST,
        "rolling.yaml": ROLLING,
        "group.yaml": GROUP % by_size,
        "words.py": WORDS,
    }
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder
