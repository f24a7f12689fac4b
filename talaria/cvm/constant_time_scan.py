#!/usr/bin/env python3
"""Scans the object code of the AVX-512 kernels, which Valgrind cannot run, for what could depend on a secret.

  constant_time_scan.py OBJDUMP ALLOW_LIST OBJECT...           compares with the list; exit 1 when anything differs
  constant_time_scan.py --print OBJDUMP ALLOW_LIST OBJECT...   prints the list as it would have to be

Secrets live in vector registers there. Refused in every function: gathers and scatters, indirect jumps and calls, divisions,
and instructions that set flags from vector or mask registers (vptest, vcomiss, kortest, ...). Counted, and compared with the
list: conditional jumps backward (loops) and forward (dispatch, guards of loops), and moves from vector or mask registers to
general ones (final sums), the way on which a secret could reach a jump. A line of the list that changes means: read the
disassembly of that function before accepting it.
"""
import re
import subprocess
import sys

REFUSED = [
    (r"v?p?(gather|scatter)\w*", "gather or scatter"),
    (r"i?div[bwlq]?", "division of integers"),
    (r"v?ptest|vtestp[sd]|v?u?comis[sd]|kortest[bwdq]|ktest[bwdq]|v?pcmp[ei]str[im]", "flags from vectors"),
    (r"(loop|jrcxz|jecxz)\w*", "loop instruction"),
]
GENERAL = r"%(r([abcd]x|[sd]i|[sb]p|\d+[bwd]?)|e([abcd]x|[sd]i|[sb]p)|[abcd][xlh]|[sd]il?|[sb]pl?)$"
CROSSING = r"v?mov[dq]|v?pextr[bwdq]|kmov[bwdq]|v?p?movmsk\w+|v?cvtt?s[sd]2u?si[lq]?|vextractps"


def functions(objdump, path):
    """Yields (name, [(address, mnemonic, operands)])."""
    text = subprocess.run([objdump, "-d", "-C", "--no-show-raw-insn", "-M", "att", path], check=True, capture_output=True,
                          text=True).stdout
    name, code = None, []
    for line in text.splitlines():
        head = re.match(r"[0-9a-f]+ <(.*)>:$", line)
        if head:
            if name is not None:
                yield name, code
            name, code = head.group(1), []
            continue
        body = re.match(r"\s*([0-9a-f]+):\s+(\S+)\s*(.*)$", line)
        if body:
            words = [body.group(2), body.group(3)]
            while words[0] in ("notrack", "bnd", "data16", "cs", "repz", "rep"):  # prefixes
                words = (words[1].split(None, 1) + [""])[:2]
            code.append((int(body.group(1), 16), words[0], words[1].split("#")[0].strip()))
    if name is not None:
        yield name, code


def scan(name, code, errors):
    backward = forward = crossings = 0
    for address, mnemonic, operands in code:
        for pattern, what in REFUSED:
            if re.fullmatch(pattern, mnemonic):
                errors.append(f"{name}: {what}: {mnemonic} {operands}")
        if re.fullmatch(r"(jmp|call)q?", mnemonic) and operands.startswith("*"):
            errors.append(f"{name}: indirect: {mnemonic} {operands}")
        elif re.fullmatch(r"j(?!mp)\w+", mnemonic):
            target = int(operands.split()[0], 16)
            if target <= address:
                backward += 1
            else:
                forward += 1
        if re.fullmatch(CROSSING, mnemonic) and re.search(GENERAL, operands) and re.match(r".*(%[xyz]mm|%k)\d", operands):
            crossings += 1
    return backward, forward, crossings


def short(name):
    """Without arguments and namespaces."""
    name = re.sub(r"talaria::|\(anonymous namespace\)::|internal::", "", name)
    name = re.sub(r"^void ", "", name)
    return re.sub(r"\(.*\)", "", name)


def main():
    arguments = sys.argv[1:]
    show = arguments[:1] == ["--print"]
    objdump, allow_list, *objects = arguments[1:] if show else arguments
    objects = [o for o in objects if "avx512" in o]
    if not objects:
        sys.exit("constant_time_scan: no AVX-512 object was given")
    errors, found = [], {}
    for path in sorted(objects):
        for name, code in functions(objdump, path):
            key = short(name)
            if key in found:
                errors.append(f"{key}: two functions of that name")
            found[key] = scan(name, code, errors)
    if show:
        for name, (backward, forward, crossings) in sorted(found.items()):
            print(f"{backward:3d} {forward:3d} {crossings:3d}  {name}")
    else:
        allowed = {}
        with open(allow_list, encoding="utf-8") as lines:
            for line in lines:
                if line.strip() and not line.startswith("#"):
                    backward, forward, crossings, name = line.split(None, 3)
                    allowed[name.strip()] = (int(backward), int(forward), int(crossings))
        for name in sorted(found.keys() | allowed.keys()):
            if found.get(name) != allowed.get(name):
                errors.append(f"{name}: found {found.get(name)}, the list says {allowed.get(name)} (backward, forward, moves)")
        print(f"{len(found)} functions in {len(objects)} objects")
    for error in errors:
        print("constant_time_scan:", error, file=sys.stderr)
    sys.exit(1 if errors else 0)


if __name__ == "__main__":
    main()
