"""Small files in every layout that language data sets come in, and the examples that each must become."""

SQUAD = {
    "data": [
        {
            "title": "Super_Bowl_50",
            "paragraphs": [
                {
                    "context": "The Broncos won.",
                    "qas": [
                        {"id": "1", "question": "Who won?", "answers": [{"text": "Broncos"}, {"text": "The  Broncos"}]},
                        {"id": "2", "question": "Who?", "answers": [{"text": "Broncos"}, {"text": "Broncos"}]},
                    ],
                }
            ],
        }
    ]
}
DROP = {
    "p1": {
        "passage": "Two goals by Ann and Bo.",
        "qa_pairs": [
            {"question": "How many?", "answer": {"number": "2", "spans": []}, "validated_answers": [{"spans": ["Two"]}]},
            {"question": "Who?", "answer": {"number": "", "date": {"day": "", "month": "", "year": ""}, "spans": ["Ann", "Bo"]}},
            {"question": "When?", "answer": {"date": {"day": "3", "month": "May", "year": "1990"}, "spans": []}},
        ],
    }
}  # fmt: skip
MULTIRC = {
    "idx": 0,
    "passage": {
        "text": "Ann runs.",
        "questions": [{"question": "Who?", "answers": [{"text": "Ann", "label": 1}, {"text": "Bo", "label": 0}]}],
    },
}
LAYOUTS = {
    "sst2/dev.tsv": (
        'sentence\tlabel\nit \'s "good" . \t1\nbad\u2028line\t0\n',
        [{"sentence": 'it \'s "good" . ', "label": 1}, {"sentence": "bad\u2028line", "label": 0}],
    ),
    "qqp/dev.tsv": (
        "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\r\n7\t1\t2\tWhy?\tHow?\t1\r\n",
        [{"question1": "Why?", "question2": "How?", "label": 1}],
    ),
    "rte/val.jsonl": (
        [{"premise": "p", "hypothesis": h, "label": label} for h, label in (("a", "entailment"), ("b", "not_entailment"))],
        [{"premise": "p", "hypothesis": "a", "label": 0}, {"premise": "p", "hypothesis": "b", "label": 1}],
    ),
    "cb/val.jsonl": (
        [{"premise": "p", "hypothesis": "h", "label": label} for label in ("entailment", "contradiction", "neutral")],
        [{"premise": "p", "hypothesis": "h", "label": label} for label in (0, 1, 2)],
    ),
    "boolq/val.jsonl": (
        [{"question": "q", "passage": f"T -- a -- {label}", "label": label} for label in ("true", "false", True, False, 1, 0)],
        [
            {"question": "q", "passage": f"a -- {text}", "label": label}
            for text, label in (("true", 1), ("false", 0), ("True", 1), ("False", 0), ("1", 1), ("0", 0))
        ],
    ),
    "wic/val.jsonl": (
        [{"word": "w", "sentence1": "a w", "sentence2": "b w", "idx": 1, "label": True, "start1": 2}],
        [{"word": "w", "sentence1": "a w", "sentence2": "b w", "label": 1}],
    ),
    "wsc/val.jsonl": (
        [{"text": "A saw B; he ran.", "target": {"span1_text": "A", "span2_text": "he", "span1_index": 0}, "label": False}],
        [{"text": "A saw B; he ran.", "span1_text": "A", "span2_text": "he", "label": 0}],
    ),
    "multirc/val.jsonl": (
        [MULTIRC],
        [
            {"paragraph": "Ann runs.", "question": "Who?", "answer": "Ann", "label": 1},
            {"paragraph": "Ann runs.", "question": "Who?", "answer": "Bo", "label": 0},
        ],
    ),
    "squad/dev-v1.1.json": (
        SQUAD,
        [
            {"title": "Super Bowl 50", "context": "The Broncos won.", "question": q, "answers": answers}
            for q, answers in (("Who won?", ("Broncos", "The Broncos")), ("Who?", ("Broncos",)))
        ],
    ),
    "drop/drop_dataset_dev.json": (
        DROP,
        [
            {"passage": "Two goals by Ann and Bo.", "question": q, "answers": answers}
            for q, answers in (("How many?", ("2", "Two")), ("Who?", ("Ann, Bo",)), ("When?", ("3 May 1990",)))
        ],
    ),
    "drop/val.jsonl": (
        [{"passage": "p", "question": "q", "answers_spans": {"spans": ["1", "one", "1"], "types": []}}],
        [{"passage": "p", "question": "q", "answers": ("1", "one")}],
    ),
}
