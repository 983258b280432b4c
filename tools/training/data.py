"""Documents to token streams: reading, the tokenizer, training and validation batches.

A folder holds DOMAIN.N.jsonl.gz (one {"text": ...} or {"messages": [...]} a line) and DOMAIN.valid.jsonl.gz."""
import glob
import gzip
import json
import os
import random

import numpy as np
import torch

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
QWEN_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def render(document):
    if "text" in document:
        return document["text"]
    return "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in document["messages"])


def read(folder, log):
    """-> {domain: [text]} for training and for validation"""
    train, valid = {}, {}
    for path in sorted(glob.glob(os.path.join(folder, "*.jsonl.gz"))):
        name = os.path.basename(path)[: -len(".jsonl.gz")]
        split = valid if name.endswith(".valid") else train
        with gzip.open(path, "rt", encoding="utf-8") as f:
            docs = [render(json.loads(line)) for line in f if line.strip()]
        split.setdefault(name.split(".")[0], []).extend(docs)
        log("read", os.path.basename(path), len(docs), "documents", sum(map(len, docs)) / 1e6, "M characters")
    return train, valid


def sample(train, characters):
    """About so many characters of every domain, to learn the tokenizer from."""
    out = []
    for docs in train.values():
        left, shuffled = characters, docs[:]
        random.shuffle(shuffled)
        for d in shuffled:
            out.append(d)
            left -= len(d)
            if left < 0:
                break
    return out


def build_tokenizer(docs, vocab, path):
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    t = Tokenizer(models.BPE(byte_fallback=False))
    t.normalizer = normalizers.NFC()
    t.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN_PATTERN), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False),
        ]
    )
    t.decoder = decoders.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    trainer = trainers.BpeTrainer(vocab_size=vocab, special_tokens=SPECIAL,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    t.train_from_iterator(docs, trainer)
    t.save(path)
    return t


def encode(tokenizer, docs):
    end, out = tokenizer.token_to_id("<|endoftext|>"), []
    for i in range(0, len(docs), 2000):
        out += [np.array(e.ids + [end], dtype=np.uint16) for e in tokenizer.encode_batch(docs[i : i + 2000])]
    return out


class Stream:
    """All training tokens in random order of documents, as one line from which batches are cut anywhere."""

    def __init__(self, tokenizer, train, chat_repeat, device, log):
        seqs = []
        for name, docs in train.items():
            e = encode(tokenizer, docs)
            log("tokens", name, sum(map(len, e)) / 1e6, "M")
            seqs += e * (chat_repeat if name == "chat" else 1)
        random.shuffle(seqs)
        self.tokens = torch.from_numpy(np.concatenate(seqs).astype(np.int16)).to(device)
        log("stream", self.tokens.numel() / 1e6, "M tokens")

    def batch(self, rows, length):
        device = self.tokens.device
        start = torch.randint(0, self.tokens.numel() - length - 1, (rows, 1), device=device)
        x = self.tokens[start + torch.arange(length + 1, device=device)].long() & 0xFFFF
        return x[:, :-1], x[:, 1:]


def validation(tokenizer, valid, length, device):
    """-> {domain: [32 * n, length + 1] tokens}"""
    out = {}
    for name, docs in valid.items():
        tokens = np.concatenate(encode(tokenizer, docs))[: 64 * (length + 1) * 4]
        rows = len(tokens) // (length + 1) // 32 * 32
        if rows:
            out[name] = torch.from_numpy(tokens[: rows * (length + 1)].astype(np.int64)).view(rows, -1).to(device)
    return out
