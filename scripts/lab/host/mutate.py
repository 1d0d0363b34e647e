#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""
usage: mutate.py TREE BASE TO FILE[=OBJECT]...

Makes mutations of C files of the kernel work tree TREE, each a patch NUMBER.patch in the
directory TO: leaves out each statement, negates each condition and adds one to each constant,
in lines that differ from the commit BASE. The first line of a patch has the kind of the
mutation and the source text, with what it changes in [[ ]].

Coccinelle, with mutate.cocci, tells where statements and conditions are. The command that
made OBJECT (default: FILE with .o; a header names that of a file that includes it) says
which lines of FILE are compiled and what is a constant. A function begins and ends with a
brace at the start of a line.
"""

import os
import re
import subprocess
import sys

FUNCTION = re.compile(r'^\w[^;{}#\n]*?(\w+)\([^;{}#\n]*\n(?:[ \t][^;{}\n]*\n)*\{\n.*?^\}', re.M | re.S)
TOKEN = re.compile(r'/\*.*?\*/|"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\'|^#.*|\w+', re.S | re.M)
# These do nothing at run time, or only when a debug option is set, or are no statement.
NOTHING = re.compile(r'(BUILD_BUG_ON\w*|__acquires?|__releases?|pr_debug|lockdep_assert\w*|'
                     r'LIST_HEAD|DEFINE_\w+)\s*\(|[;{]|(case|default)\b|\w+:')
# No room for a constant: not the size of an array, nor what has to be known when it is compiled.
FIXED = re.compile(r'\s*(static\b.*|case\b.*|(struct|unsigned|\w+)\s+\**\w+\[.*)$|'
                   r'.*(IS_ENABLED|sizeof)\s*\([^()]*$')
NUMBER = re.compile(r'(0x[0-9a-f]+|[0-9]+)[ul]*$', re.I)
# A macro's body that is a number, a bit or another name, maybe in parentheses.
CONSTANT = re.compile(r'\(*(-?(?:0x[0-9a-f]+|[0-9]+)[ul]*|1\w*<<\w+|[a-z_]\w*)\)*$', re.I)


def output(*command, **options):
    return subprocess.run(command, stdout=subprocess.PIPE, check=True, encoding='utf-8',
                          **options).stdout


def changed_lines(tree, base, name):
    """The numbers of the lines that differ from those of BASE."""
    diff = output('git', '-C', tree, 'diff', '-U0', base, 'HEAD', '--', name)
    return {n for first, count in re.findall(r'^@@ \S+ \+(\d+)(?:,(\d+))? ', diff, re.M)
            for n in range(int(first), int(first) + int(count or 1))}


def preprocess(tree, name, obj):
    """The lines that are compiled, and what names stand for."""
    directory, base = os.path.split(obj or re.sub(r'\.c$', '.o', name))
    with open(os.path.join(tree, 'obj', directory, f'.{base}.cmd'), encoding='utf-8') as f:
        command = f.readline().split(':=', 1)[1].split(' ; ')[0].strip()
    command = re.sub(r' -Wp,-MMD,\S+| -c -o \S+', '', command) + ' -E -dD'
    text = output('sh', '-c', command, cwd=os.path.join(tree, 'obj'))
    lines = set()
    for first, part in re.findall(r'^# (\d+) "[^"]*/%s".*\n((?:(?!# \d).*\n)*)' % name, text, re.M):
        lines.update(n for n, line in enumerate(part.split('\n'), int(first)) if line)
    defines = dict(re.findall(r'^#define (\w+) (.*)', text, re.M))
    for names in re.findall(r'\benum\b[^{;()]*\{([^}]*)', re.sub(r'^#.*\n', '', text, flags=re.M)):
        defines.update((name, '0') for name in re.findall(r'(?:^|,)\s*(\w+)', names))
    return lines, defines


def is_constant(name, defines, depth=0):
    if NUMBER.match(name):
        return True
    match = CONSTANT.match(defines.get(name, '').replace(' ', ''))
    if not match or depth > 4:
        return False
    inner = match.group(1)
    return not re.match(r'[A-Za-z_]\w*$', inner) or is_constant(inner, defines, depth + 1)


def mutations(name, text, defines):
    """Yields kind, start and end of the text to be replaced, and the new text."""
    starts = [0, 0] + [m.end() for m in re.finditer('\n', text)]
    cocci = os.path.splitext(__file__)[0] + '.cocci'
    for place in output('spatch', '--very-quiet', '--no-show-diff', '--iso-file', '/dev/null',
                        '--sp-file', cocci, name).splitlines():
        kind, *at = place.split(' ')
        line, column, end_line, end_column = map(int, at)
        start, end = starts[line] + column, starts[end_line] + end_column
        old = text[start:end]
        if kind == 'condition':
            yield kind, start, end, f'(!({old}))'
            continue
        if NOTHING.match(old):
            continue
        value = re.match(r'return\b\s*(.*);$', old, re.S)
        if not value or not text.startswith('\n}', end):
            # It may have a label.
            yield kind, start, end, '{ if (0) { %s } }' % old
        elif value.group(1) not in ('', '0', 'NULL', 'false'):
            yield kind, start, end, '{ static typeof(%s) zero; return zero; }' % value.group(1)
        # Coccinelle cannot match this one.
        if re.match(r'do\b', old):
            at = old.rindex('while (') + 7
            yield 'condition', start + at, end - 2, f'!({old[at:-2]})'
    for function in FUNCTION.finditer(text):
        for token in TOKEN.finditer(text, text.index('\n{', function.start()), function.end()):
            old = token.group()
            before = text[text.rindex('\n', 0, token.start()) + 1:token.start()]
            if is_constant(old, defines) and not FIXED.match(before) and text[token.end()] != '(':
                # true + 1 is true
                new = '(true - 1)' if old == 'true' else f'({old} + 1)'
                yield 'constant', *token.span(), new


def main():
    tree, base, to, *args = sys.argv[1:]
    number = 0
    for arg in args:
        name, _, obj = arg.partition('=')
        path = os.path.join(tree, name)
        with open(path, encoding='utf-8') as f:
            text = f.read()
        changed = changed_lines(tree, base, name)
        compiled, defines = preprocess(tree, name, obj)
        functions = [(m.start(), m.end(), m.group(1)) for m in FUNCTION.finditer(text)]
        for kind, start, end, new in sorted(set(mutations(path, text, defines)),
                                            key=lambda m: (m[1], m[0], m[2])):
            first, last = text.count('\n', 0, start) + 1, text.count('\n', 0, end) + 1
            where = [f for begin, stop, f in functions if begin < start < stop]
            # The preprocessor writes the arguments of a macro into its first line.
            begin = text.count('\n', 0, max(text.rfind(c, 0, start) for c in ';{}')) + 2
            if not where or not compiled.intersection(range(min(begin, first), first + 1)) or \
                    not changed.intersection(range(first, last + 1)):
                continue
            number += 1
            line_start, line_end = text.rindex('\n', 0, start) + 1, text.index('\n', end)
            before, after = text[line_start:start], text[end:line_end]
            shown = ' '.join(f'{before}[[{text[start:end]}]]{after}'.split())
            with open(os.path.join(to, f'{number}.patch'), 'w', encoding='utf-8') as f:
                old = text[line_start:line_end].split('\n')
                new = (before + new + after).split('\n')
                print(f'{kind}: {shown}', f'--- a/{name}', f'+++ b/{name}',
                      f'@@ -{first},{len(old)} +{first},{len(new)} @@ {where[0]}', sep='\n', file=f)
                print(*('-' + line for line in old), *('+' + line for line in new), sep='\n', file=f)


main()
