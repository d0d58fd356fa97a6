"""The data sets of the study: what each is, where it is from, its licence and how it was converted.

The only list of the sets. docs/datasets.md has its tables, written by `python -m research.get_data --pages`.
"""

from __future__ import annotations

from typing import NamedTuple


class DataSet(NamedTuple):
    """A data set of the study, or one that is ready for it.

    Attributes:
        name: Its folder in data/sets.
        task: What is searched for what.
        documents: Size of the corpus.
        queries: Number of train, dev and test queries.
        citation: Authors, year and venue.
        url: Where the original is.
        licence: Its licence, with the restrictions that matter.
        files: Files of the original that were converted, with the commit where it is a repository.
        conversion: How the original became corpus, queries and judgements.
        hash: Identity of the converted data (`Dataset.hash`); measurements are of these data.
        studied: Whether a study of research/studies uses it.
    """

    name: str
    task: str
    documents: int
    queries: tuple[int, int, int]
    citation: str
    url: str
    licence: str
    files: str
    conversion: str
    hash: str
    studied: bool = True


SETS = (
    DataSet(
        name="alfred",
        task="goal of a household robot → skills of the expert plan",
        documents=603,
        queries=(4872, 673, 747),
        citation="Shridhar et al. 2020, CVPR",
        url="https://github.com/askforalfred/alfred",
        licence="MIT",
        files="`data/json_2.1.0` at f91f4c0",
        conversion="Query: a worker's goal sentence. Relevant: the distinct high-level actions of the plan that the "
        "goal tells. Splits: train, valid_seen (dev), valid_unseen (test); goals of test are left out of "
        "train and dev.",
        hash="4f2815b7e04cef15",
    ),
    DataSet(
        name="argkp",
        task="argument on a motion → key point that sums it up",
        documents=276,
        queries=(4017, 671, 498),
        citation="Bar-Haim et al. 2020, ACL; Friedman-Melamed et al. 2021",
        url="https://github.com/IBM/KPA_2021_shared_task",
        licence="CDLA-Sharing 1.0 (pass on under the same agreement only)",
        files="`kpm_data`, `test_data` at 2f5e2d5",
        conversion="Query: motion and argument. Relevant: the key points labelled as matching; arguments without one "
        "are left out. Official splits by motion.",
        hash="5f9248d534223d0b",
    ),
    DataSet(
        name="ecare",
        task="event → its cause or effect",
        documents=15240,
        queries=(7622, 574, 2106),
        citation="Du et al. 2022, ACL",
        url="https://github.com/Waste-Wood/e-CARE",
        licence="MIT",
        files="`dataset/Causal_Reasoning/train.jsonl`, `dataset/Explanation_Generation/train.jsonl`, "
        "`dataset/dev_full.jsonl` at c3b5264",
        conversion="Query: premise and whether cause or effect is asked for. Relevant: the right hypothesis; wrong "
        "ones are distractors. The official dev set is test; train and dev come from the official train "
        "set, without questions that share a premise or explanation with test.",
        hash="01f49f98ec58e959",
    ),
    DataSet(
        name="entailmentbank",
        task="science question with its answer → supporting facts",
        documents=8679,
        queries=(1311, 187, 339),
        citation="Dalvi et al. 2021, EMNLP",
        url="https://github.com/allenai/entailment_bank",
        licence="Apache-2.0",
        files="`data/processed_data/tsvs/task_1`, `task_2` at daac2fd",
        conversion="Query: question and right answer. Relevant: the leaf facts of its tree (task 1); distractor facts "
        "of task 2 are added. Official splits.",
        hash="6f0e455529e03e56",
    ),
    DataSet(
        name="esconv",
        task="emotional-support dialogue so far → strategy of the next turn",
        documents=8,
        queries=(12756, 2722, 2895),
        citation="Liu et al. 2021, ACL",
        url="https://github.com/thu-coai/Emotional-Support-Conversation",
        licence="CC BY-NC 4.0 (academic research only)",
        files="`dataset/esconv/{train,valid,test}.txt` of yulinlp/T5-PEFT at be2ffc3 (copy of `ESConv.json`)",
        conversion="Query: situation and the last five utterances before a supporter's turn. Relevant: the strategy of"
        " that turn, described in one line. Official splits by conversation.",
        hash="be4536310ded74bd",
    ),
    DataSet(
        name="metatool",
        task="user request → tool that serves it",
        documents=199,
        queries=(8257, 910, 2338),
        citation="Huang et al. 2024, ICLR",
        url="https://github.com/HowieHwong/MetaTool",
        licence="MIT",
        files="`dataset/data/all_clean_data.csv`, `dataset/data/multi_tool_query_golden.json`, "
        "`dataset/plugin_des.json`, `dataset/big_tool_des.json` at 35e81bb",
        conversion="Query: the request, unless it names the tool; at most 60 per tool. Split 75/8/17 per tool, near-"
        "duplicates together; two-tool requests are in test.",
        hash="88661a4cb1f54476",
    ),
    DataSet(
        name="nfcorpus",
        task="title of a nutrition article → medical abstracts it rests on",
        documents=3395,
        queries=(2538, 322, 323),
        citation="Boteva et al. 2016, ECIR; Thakur et al. 2021 (BEIR)",
        url="https://www.cl.uni-heidelberg.de/statnlpgroup/nfcorpus/",
        licence="free for academic use",
        files="`test.docs`, `dev.docs` of ferdifdi/nfcorpus_medical_search_engine at b9fcd24; queries and "
        "judgements of keeeevinShen/RAG_nfcorpus at c03089c",
        conversion="Documents in the archive's pre-processed form (lower case, no stop words). Queries, grades and "
        "splits as in BEIR. Figures are near those published for BEIR, not equal.",
        hash="5edfe5909e29d9a0",
    ),
    DataSet(
        name="piqa",
        task="everyday physical goal → way to reach it",
        documents=3226,
        queries=(896, 135, 583),
        citation="Bisk et al. 2020, AAAI",
        url="https://github.com/ybisk/ybisk.github.io",
        licence="Academic Free License 3.0",
        files="`piqa/data/valid.jsonl`, `valid-labels.lst` at 21edab4",
        conversion="Query: the goal. Relevant: the right solution; wrong ones are distractors. Split 55/10/35 by a "
        "hash, near-duplicates together.",
        hash="2e89da731cc4c7db",
    ),
    DataSet(
        name="saycan",
        task="instruction to a kitchen robot → skills of its plan",
        documents=551,
        queries=(40, 12, 28),
        citation="Ahn et al. 2022, CoRL",
        url="https://github.com/say-can/say-can.github.io",
        licence="CC BY 4.0",
        files="`data/saycan_plan_v0_l.tsv` at 6988649",
        conversion="Query: the instruction. Relevant: every step of its plan. 491 of the 551 skills are composed "
        "distractors. Split 50/15/35, instructions of one plan together. Too small for conclusions.",
        hash="5de741c6a6ed5810",
    ),
    DataSet(
        name="theoremqa",
        task="university-level problem → theorem that solves it",
        documents=354,
        queries=(368, 116, 263),
        citation="Chen et al. 2023, EMNLP",
        url="https://github.com/TIGER-AI-Lab/TheoremQA",
        licence="MIT",
        files="`theoremqa_test.json` at acfc968; `all_theorems.json` of wenhuchen/TheoremQA at 585c960",
        conversion="Query: the question, unless it needs a picture. Relevant: the theorem named with it. Split "
        "50/15/35 by theorem, so that test theorems have no training query.",
        hash="436ff543bdda86f4",
    ),
    DataSet(
        name="apibench",
        task="developer's request → machine-learning model",
        documents=991,
        queries=(1404, 255, 593),
        citation="Patil et al. 2023 (Gorilla)",
        url="https://github.com/ShishirPatil/gorilla",
        licence="Apache-2.0",
        files="`data/api/*_api.jsonl`, `data/apibench/*_eval.json`, `torchhub_train.json` at 6ea5797",
        conversion="Query: the instruction, unless it names the model; at most 60 per model. Documents: one per model,"
        " name and description. Hugging Face split by model, so that its test models have no training "
        "query.",
        hash="e634e4539b3ec7c1",
        studied=False,
    ),
    DataSet(
        name="arct",
        task="reason and claim → the unstated warrant",
        documents=3936,
        queries=(769, 205, 289),
        citation="Habernal et al. 2018, NAACL",
        url="https://github.com/UKPLab/argument-reasoning-comprehension-task",
        licence="Apache-2.0",
        files="`experiments/src/main/python/data/{train,dev,test}.tsv` at 929f584",
        conversion="Query: reason and claim. Relevant: the right warrant; alternative warrants are distractors. "
        "Official splits.",
        hash="dd4c97f7a41852a9",
        studied=False,
    ),
    DataSet(
        name="clinc150",
        task="utterance to a voice assistant → intent",
        documents=150,
        queries=(7500, 1500, 2250),
        citation="Larson et al. 2019, EMNLP",
        url="https://github.com/clinc/oos-eval",
        licence="CC BY 3.0",
        files="`data/data_full.json` at 828f809",
        conversion="Query: the utterance. Relevant: its intent, described in one sentence written for this set. "
        "Official splits, cut to 50/10/15 utterances per intent. Out-of-scope utterances are in "
        "`out_of_scope.jsonl`.",
        hash="a9200d90e3c6fe3b",
        studied=False,
    ),
    DataSet(
        name="strategyqa",
        task="question with implicit steps → supporting facts",
        documents=6096,
        queries=(1851, 209, 229),
        citation="Geva et al. 2021, TACL",
        url="https://github.com/eladsegal/strategyqa",
        licence="MIT",
        files="`data/strategyqa/{train,dev}.json` at 1ba1e97",
        conversion="Query: the question. Relevant: its facts. The original dev set is test; train is split 90/10 by "
        "term.",
        hash="94c446fb4b0c1105",
        studied=False,
    ),
    DataSet(
        name="tldr",
        task="need at the command line → command",
        documents=3000,
        queries=(9000, 1000, 1500),
        citation="the tldr-pages team and contributors",
        url="https://github.com/tldr-pages/tldr",
        licence="CC BY 4.0",
        files="`pages/` at 08e345f",
        conversion="Query: the sentence above an example, unless it names the command. Document: the command's name "
        "and description. Split by a hash; 30 % of the test queries ask for a command without a training "
        "query.",
        hash="b5a6971af05c1e79",
        studied=False,
    ),
    DataSet(
        name="virtualhome",
        task="name of a household task → action steps",
        documents=3000,
        queries=(114, 29, 59),
        citation="Huang et al. 2022, ICML; Puig et al. 2018, CVPR",
        url="https://github.com/huangwl18/language-planner",
        licence="MIT",
        files="`src/available_examples.json`, `src/available_actions.json` at c6adcbc",
        conversion="Query: a task name. Relevant: the steps in at least half of its programs. Split 55/15/30 by a "
        "hash, similar names together.",
        hash="9ca55bb20d8f72d6",
        studied=False,
    ),
)
BY_NAME = {one.name: one for one in SETS}


def overview_table() -> str:
    """Markdown: what each set is, its size and its licence."""
    rows = ["| set | task | documents | queries (train / dev / test) | licence |", "|---|---|---:|---:|---|"]
    for one in SETS:
        name = f"**{one.name}**" if one.studied else one.name
        sizes = " / ".join(f"{count:,}" for count in one.queries)
        rows.append(f"| {name} | {one.task} | {one.documents:,} | {sizes} | {one.licence} |")
    return "\n".join(rows)


def source_table() -> str:
    """Markdown: where each set is from, which files to download, and how they become a BEIR folder."""
    rows = ["| set | source | files to download | conversion |", "|---|---|---|---|"]
    rows += [f"| {one.name} | [{one.citation}]({one.url}) | {one.files} | {one.conversion} |" for one in SETS]
    return "\n".join(rows)
