#!/usr/bin/env python3
"""Puts profile files into the program: writes the C table that src/hw/builtin.h declares.

usage: embed.py OUTPUT.c INPUT.json...
"""
import pathlib
import sys

PER_LINE = 24


def is_base(path):
    return path.parent.name == "base"


def main():
    if len(sys.argv) < 3:
        sys.exit("usage: embed.py OUTPUT.c INPUT.json...")
    files = sorted((pathlib.Path(name) for name in sys.argv[2:]), key=lambda path: (is_base(path), path.stem))
    out = ['#include "hw/builtin.h"\n']
    for number, path in enumerate(files):
        data = path.read_bytes() + b"\0"
        out.append(f"static const char text_{number}[] = {{")
        for at in range(0, len(data), PER_LINE):
            out.append("\t" + ", ".join(str(b if b < 128 else b - 256) for b in data[at : at + PER_LINE]) + ",")
        out.append("};\n")
    out.append("const struct builtin_profile builtin_profiles[] = {")
    for number, path in enumerate(files):
        out.append(f'\t{{"{path.stem}", text_{number}, sizeof(text_{number}) - 1, {str(is_base(path)).lower()}}},')
    out.append("\t{NULL, NULL, 0, false},\n};")
    pathlib.Path(sys.argv[1]).write_text("\n".join(out) + "\n")


main()
