#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""
usage: mutate.py TREE BASE TO TABLE DIFFS FILE[=OBJECT]...

Compiles many mutations of C files into the same kernel: reads the kernel work tree TREE and
writes the mutated files to the tree TO. There each function has a variant for every mutation
of it, and calls the variant if lab_mutant_nr has its number.

Each file of DIFFS is a mutation made by hand: a line that says what it breaks, and what
"git diff -U0" prints. The machine makes the others: of the FILEs it leaves out each
statement, negates each condition and adds one to each constant, in lines that differ from
the commit BASE. The command that made OBJECT (default: FILE with .o; a header names that of
a file that includes it) says which lines of FILE are compiled and what is a constant.

TABLE gets a line for each mutation, with tabs between: name (by machine: the number),
number, file, line, kind ("statement", "condition", "constant"; by hand: "patch"),
function, and the source text, with a constant in [[ ]], or what a patch breaks.

C is read by its tokens, in the kernel's style: functions begin and end with a brace at
the start of a line; a macro looks like a function, or like a loop if a statement follows.
"""

import os
import re
import subprocess
import sys

TOKEN = re.compile(
    r'/\*.*?\*/|^#(?:\\\n|[^\n])*|"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\'|\w+|\?:|->|\+\+|--|'
    r'<<=|>>=|<<|>>|&&|\|\||[-+*/%&|^=!<>]=|\S', re.S | re.M)
FUNCTION = re.compile(r'^(\w[^;{}#\n]*\n(?:[ \t][^;{}\n]*\n)*)\{\n', re.M)
# These do nothing at run time, or only when a debug option is set.
NOTHING = re.compile(r'(BUILD_BUG_ON\w*|__acquires?|__releases?|pr_debug|lockdep_assert\w*)\s*\(|;')
DECLARATION = re.compile(r'(static|const|struct|unsigned|enum)\b|(LIST_HEAD|DEFINE_\w+)\(|'
                         r'(?!return|goto)\w+(\s+\w+)*\s+\**\w+\s*[=;,[]')
NUMBER = re.compile(r'(0[xX][0-9a-fA-F]+|[0-9]+)[uUlL]*$')
# A macro's body that is a number, a bit or another name, maybe in parentheses.
CONSTANT = re.compile(r'\(*(-?(?:0x[0-9a-f]+|[0-9]+)[ul]*|1\w*<<\w+|[a-z_]\w*)\)*$', re.I)
# What takes expressions apart, the weakest first.
OPERATORS = [[',', ';'], ['=', '+=', '-=', '*=', '/=', '%=', '&=', '|=', '^=', '<<=', '>>=',
                          'return'], ['?:'], ['?', ':'], ['||'], ['&&']]


class Function:
    """A function's place in its file, its tokens and its variants."""

    def __init__(self, match, text):
        self.head = match.group(1)
        self.start, self.open = match.span(1)
        self.end = text.index('\n}', self.open) + 2
        self.name, arguments = re.search(r'(\w+)\((.*)\)', self.head, re.S).groups()
        names = re.findall(r'\(\*(\w+)\)\([^()]*\)(?=,|$)|(\w+)(?:\[\])?\s*(?=,|$)', arguments)
        self.call = '(%s)' % ', '.join(a or b for a, b in names if b != 'void')
        self.variants = []
        self.cases = ''
        self.is_void = re.search(r'\bvoid\s+(\w+\s+)?%s\(' % self.name, self.head)
        tokens = [t for t in TOKEN.finditer(text, self.open, self.end)
                  if not t.group().startswith(('#', '/*'))]
        self.tokens = [t.group() for t in tokens]
        self.starts = [t.start() for t in tokens]
        self.ends = [t.end() for t in tokens]
        self.close = {}
        opened = []
        for i, token in enumerate(self.tokens):
            if token in '([{':
                opened.append(i)
            elif token in ')]}':
                self.close[opened.pop()] = i

    def add_variant(self, text, number, name, edits):
        variant = '%s__%s' % (self.name, name.replace('-', '_'))
        head = re.sub(r'\b(static|extern|inline|__always_inline|noinline)\b\s*', '', self.head)
        head = re.sub(r'\b%s\b' % self.name, variant, head, count=1)
        self.variants.append('static noinline __maybe_unused ' + head)
        at = self.open
        for start, end, new in edits:
            self.variants += [text[at:start], new]
            at = end
        call = variant + self.call
        # It may come to its end without a return that was left out.
        zero = '' if self.is_void else 'static typeof(%s) zero; return zero; ' % call
        self.variants += [text[at:self.end - 1], zero, '}\n\n']
        self.cases += ' case %d: return %s;' % (number, call)

    def outside(self, tokens, start, end):
        """Where these tokens are from start to end, outside of parentheses."""
        i = start
        while i < end:
            if self.tokens[i] in tokens:
                yield i
            i = self.close.get(i, i) + 1


class File:
    """A file with its functions, and the mutations that the machine makes of it."""

    def __init__(self, tree, name, table):
        self.name = name
        self.table = table
        with open(os.path.join(tree, name), encoding='utf-8') as f:
            self.text = f.read()
        self.functions = [Function(m, self.text) for m in FUNCTION.finditer(self.text)]

    def line(self, offset):
        return self.text.count('\n', 0, offset) + 1

    def add(self, edits, kind, shown, name=None):
        """Makes a mutation of some (start, end, new text)."""
        number = len(self.table) + 1
        name = name or str(number)
        inside = [(f, e) for f in self.functions for e in edits if f.open < e[0] and e[1] < f.end]
        if len(inside) != len(edits):
            sys.exit('mutate.py: %s changes %s outside of functions' % (name, self.name))
        for function in dict(inside):
            function.add_variant(self.text, number, name, [e for f, e in inside if f == function])
        self.table.append((name, number, self.name, self.line(edits[0][0]), kind,
                           inside[0][0].name, shown))

    def add_patch(self, diff, name, breaks):
        starts = [0] + [m.end() for m in re.finditer('\n', self.text)]
        edits = []
        for first, count, _, _, new in hunks(diff):
            # Nothing old means after that line.
            first -= bool(count)
            edits.append((starts[first], starts[first + count], new))
        self.add(edits, 'patch', breaks, name)

    def make_mutations(self, changed, source):
        """What a machine can do to the lines CHANGED of this source."""
        self.changed = changed
        self.source = source
        for self.f in self.functions:
            self.found = []
            self.statement(0)
            for start, end, kind, new, shown in sorted(self.found):
                shown = re.sub(r'/\*.*?\*/', '', shown, flags=re.S)
                self.add([(start, end, new)], kind, ' '.join(shown.split()))

    def mutate(self, kind, first, last, new, shown_end=None, shown=None):
        """Puts new text, with %s for the old, in place of the tokens first to last."""
        start, end = self.f.starts[first], self.f.ends[last]
        shown_end = shown_end or end
        lines = range(self.line(start), self.line(shown_end - 1) + 1)
        if self.changed.intersection(lines) and self.line(self.begin) in self.source.lines:
            self.found.append((start, end, kind, new.replace('%s', self.text[start:end]),
                               shown or self.text[start:shown_end]))

    def statement(self, i):
        """The statement that begins with token i; returns where the next one does."""
        f = self.f
        tokens = f.tokens
        word = tokens[i]
        if word == '{':
            end = f.close[i]
            i += 1
            while i < end:
                i = self.statement(i)
            return end + 1
        if word == 'case' or tokens[i + 1] == ':':
            return self.statement(tokens.index(':', i) + 1)

        # The statement has a header from i to body, or body is its end.
        body = f.close[i + 1] + 1 if tokens[i + 1] == '(' else i + 1
        if word == 'do':
            condition = self.statement(body) + 2
            end = f.close[condition - 1] + 2
        elif body > i + 1 and (word in ('for', 'while', 'switch') or
                               re.match(r'[{\w]', tokens[body])):
            end = self.statement(body)
            if tokens[end] == 'else':
                end = self.statement(end + 1)
        else:
            body = end = next(f.outside(';', i, len(tokens))) + 1

        self.begin = f.starts[i]
        text = self.text[self.begin:f.ends[end - 1]]
        if NOTHING.match(text):
            return end
        shown_end = f.starts[body] if body < end else f.ends[end - 1]
        is_declaration = DECLARATION.match(text)
        returns_nothing = end == f.close[0] and re.match(r'return(\s+(0|NULL|false))?\s*;', text)
        if not is_declaration and not returns_nothing:
            # It may have a label.
            self.mutate('statement', i, end - 1, '{ if (0) { %s } }', shown_end)
        if word == 'do':
            self.expression(condition, end - 2, True)
        elif word in ('if', 'while'):
            self.expression(i + 2, body - 1, True)
        elif word == 'for':
            first, second = f.outside(';', i + 2, body - 1)
            self.expression(i + 2, first)
            self.expression(first + 1, second, True)
            self.expression(second + 1, body - 1)
        else:
            self.expression(i, body if body < end else end - 1)
        for j in range(i, body):
            self.constant(j, is_declaration, shown_end)
        return end

    def expression(self, i, end, is_condition=False):
        """Conditions in an expression or a declaration."""
        f = self.f
        if i >= end:
            return
        if is_condition:
            self.mutate('condition', i, end - 1, '(!(%s))')
        for operators in OPERATORS:
            places = list(f.outside(operators, i, end))
            if places:
                break
        else:
            for j in f.outside('([{', i, end):
                self.expression(j + 1, f.close[j])
            return
        is_logical = operators in (['||'], ['&&'])
        if is_logical:
            # a || b || c is (a || b) || c
            places = places[-1:]
        elif operators == ['?:']:
            a = self.text[f.starts[i]:f.starts[places[0]]]
            b = self.text[f.ends[places[0]]:f.ends[end - 1]]
            self.mutate('condition', i, end - 1, '(%s? %s : 0)' % (a, b))
        for start, stop in zip([i] + [p + 1 for p in places], places + [end]):
            self.expression(start, stop, is_logical or f.tokens[stop] == '?')

    def constant(self, i, is_declaration, shown_end):
        name = self.f.tokens[i]
        if not (NUMBER.match(name) or self.source.is_constant(name)) or \
                self.f.tokens[i + 1] == '(':
            return
        before = self.text[self.begin:self.f.starts[i]]
        # Not the size of an array, nor what has to be known when it is compiled.
        if is_declaration and (before.startswith('static ') or '=' not in before):
            return
        if re.search(r'(IS_ENABLED|sizeof)\s*\([^()]*$', before):
            return
        # true + 1 is true
        self.mutate('constant', i, i, '(%s - 1)' if name == 'true' else '(%s + 1)', None,
                    '%s[[%s]]%s' % (before, name, self.text[self.f.ends[i]:shown_end]))

    def write(self, tree):
        out = ['extern unsigned int lab_mutant_nr;\n']
        at = 0
        for f in self.functions:
            if f.variants:
                out += [self.text[at:f.start], *f.variants, self.text[f.start:f.open + 1],
                        ' switch (lab_mutant_nr) {%s }' % f.cases]
                at = f.open + 1
        out.append(self.text[at:])
        with open(os.path.join(tree, self.name), 'w', encoding='utf-8') as f:
            f.write(''.join(out))


class Source:
    """What the preprocessor makes of a file: the lines that are compiled, and constants."""

    def __init__(self, tree, name, obj):
        directory, base = os.path.split(obj or re.sub(r'\.c$', '.o', name))
        with open(os.path.join(tree, 'obj', directory, '.%s.cmd' % base), encoding='utf-8') as f:
            command = f.readline().split(':=', 1)[1].split(' ; ')[0].strip()
        command = re.sub(r' -Wp,-MMD,\S+| -c -o \S+', '', command) + ' -E -dD'
        text = subprocess.run(command, shell=True, cwd=os.path.join(tree, 'obj'), check=True,
                              stdout=subprocess.PIPE, encoding='utf-8').stdout
        self.lines = set()
        for first, lines in re.findall(r'^# (\d+) "[^"]*/%s".*\n((?:(?!# \d).*\n)*)' % name,
                                       text, re.M):
            self.lines.update(n for n, line in enumerate(lines.split('\n'), int(first)) if line)
        self.defines = dict(re.findall(r'^#define (\w+) (.*)', text, re.M))
        text = re.sub(r'^#.*\n', '', text, flags=re.M)
        for names in re.findall(r'\benum\b[^{;()]*\{([^}]*)', text):
            self.defines.update((name, '0') for name in re.findall(r'(?:^|,)\s*(\w+)', names))

    def is_constant(self, name, depth=0):
        match = CONSTANT.match(self.defines.get(name, '').replace(' ', ''))
        if not match or depth > 4:
            return False
        inner = match.group(1)
        return not re.match(r'[A-Za-z_]\w*$', inner) or self.is_constant(inner, depth + 1)


def hunks(diff):
    """Of each hunk the first line and the number of lines, old and new, and the new text."""
    for hunk in re.split(r'^@@ -', diff, flags=re.M)[1:]:
        place = re.match(r'(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))?', hunk).groups('1')
        new = [line[1:] for line in hunk.splitlines(True) if line.startswith('+')]
        yield (*map(int, place), ''.join(new))


def changed_lines(tree, base, name):
    """The numbers of the lines that differ from those of BASE."""
    diff = subprocess.run(['git', '-C', tree, 'diff', '-U0', base, 'HEAD', '--', name],
                          stdout=subprocess.PIPE, check=True, encoding='utf-8').stdout
    return {n for _, _, first, count, _ in hunks(diff) for n in range(first, first + count)}


def main():
    tree, base, to, table_name, diffs, *args = sys.argv[1:]
    table = []
    files = {}
    for arg in args:
        name, _, obj = arg.partition('=')
        files[name] = File(tree, name, table)
        files[name].make_mutations(changed_lines(tree, base, name), Source(tree, name, obj))
    for mutation in sorted(os.listdir(diffs)):
        with open(os.path.join(diffs, mutation), encoding='utf-8') as f:
            breaks, diff = f.read().split('\n', 1)
        name = re.search(r'^\+\+\+ b/(.*)', diff, re.M).group(1)
        if name not in files:
            files[name] = File(tree, name, table)
        files[name].add_patch(diff, mutation, breaks)
    for f in files.values():
        f.write(to)
    with open(table_name, 'w', encoding='utf-8') as f:
        for row in table:
            f.write('\t'.join(map(str, row)) + '\n')


main()
