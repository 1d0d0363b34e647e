#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""
Compiles many mutations of C files into the same kernel.

usage: mutate.py TREE BASE TO TABLE DIFFS FILE[=OBJECT]...

Each file of DIFFS is a mutation made by hand: a line that says what it breaks, and what
"git diff -U0" prints. The machine makes the others: of the FILEs it leaves out each
statement, negates each condition and adds one to each constant, but only in lines that
differ from the commit BASE.

Reads the kernel work tree TREE and writes the mutated files to the tree TO. There each
function has a variant for every mutation of it, and calls the variant if lab_mutant_nr
has its number. The command line that make left for OBJECT (default: FILE with .o) says
how to parse FILE; a header names the object of a file that includes it.

TABLE gets a line for each mutation, with tabs between: name (by machine: the number),
number, file, line, kind ("statement", "condition", "constant"; by hand: "patch"),
function, "boot" for a function that runs only at boot, else "any", and the source text,
with a constant in [[ ]], or what a patch breaks.

clang's parser says what a statement is. A macro is one thing, as it is for a reader,
except that constants in its arguments are mutated, too.
"""

import os
import re
import shlex
import subprocess
import sys

from clang import cindex
from clang.cindex import CursorKind as K, TypeKind

# These do nothing at run time, or only when a debug option is set.
NOTHING = r'(BUILD_BUG_ON\w*|__acquires?|__releases?|pr_debug|lockdep_assert\w*)\s*\('
# These are not left out of a file.
NOT_REMOVED = {K.COMPOUND_STMT, K.DECL_STMT, K.NULL_STMT, K.CASE_STMT,
               K.DEFAULT_STMT, K.LABEL_STMT}
LABELS = {K.CASE_STMT, K.DEFAULT_STMT, K.LABEL_STMT}
LOOPS = {K.FOR_STMT, K.WHILE_STMT, K.DO_STMT}
BLOCKS = LOOPS | {K.IF_STMT, K.SWITCH_STMT}
NUMBER = re.compile(r'^(0[xX][0-9a-fA-F]+|[0-9]+)[uUlL]*$')
# A macro's body that is a number, a bit or another name, maybe in parentheses.
CONSTANT = re.compile(r'^\(*(-?(?:0x[0-9a-f]+|[0-9]+)[ul]*|1\w*<<\w+|[a-z_]\w*)\)*$', re.I)


class Function:
    """A function's place in its file, and its variants."""

    def __init__(self, cursor, text):
        self.cursor = cursor
        self.name = cursor.spelling
        self.body = list(cursor.get_children())[-1]
        self.start = cursor.extent.start.offset
        self.open = self.body.extent.start.offset
        self.end = self.body.extent.end.offset
        self.head = text[self.start:self.open]
        self.when = 'boot' if re.search(r'\b__init\b', self.head) else 'any'
        self.variants = []
        self.calls = ''
        result = cursor.result_type.get_canonical().kind
        self.returns_struct = result == TypeKind.RECORD
        # A variant that leaves out a return may come to its end.
        self.last_return = '' if result in (TypeKind.VOID, TypeKind.RECORD) else ' return 0; '

    def add_variant(self, text, number, name, edits):
        variant = '%s__%s' % (self.name, name.replace('-', '_'))
        head = re.sub(r'\b(static|extern|inline|__always_inline|noinline)\b\s*', '', self.head)
        head = re.sub(r'\b%s\b' % self.name, variant, head, count=1)
        self.variants.append('static noinline __maybe_unused ' + head)
        at = self.open
        for start, end, new in edits:
            self.variants += [text[at:start], new]
            at = end
        self.variants += [text[at:self.end - 1], self.last_return, '}\n\n']
        arguments = ', '.join(a.spelling for a in self.cursor.get_arguments())
        self.calls += ' case %d: return %s(%s);' % (number, variant, arguments)


class File:
    """A file with its functions, and the mutations that the machine makes of it."""

    def __init__(self, tree, name, unit, table):
        self.name = name
        self.table = table
        # One character for each byte: the parser counts bytes.
        with open(os.path.join(tree, name), encoding='latin-1') as f:
            self.text = f.read()
        self.macros = []
        self.names = set()
        self.defines = {}
        self.functions = []
        for c in unit.cursor.get_children():
            if c.kind == K.ENUM_DECL:
                self.names.update(e.spelling for e in c.get_children())
            elif c.kind == K.MACRO_DEFINITION:
                self.defines[c.spelling] = c
            elif c.kind == K.MACRO_INSTANTIATION and self.is_here(c):
                self.macros.append((c.extent.start.offset, c.extent.end.offset))
            elif c.kind == K.FUNCTION_DECL and c.is_definition() and self.is_here(c):
                function = Function(c, self.text)
                if self.text[function.open:function.open + 1] == '{':
                    self.functions.append(function)

    def is_here(self, cursor):
        file = cursor.location.file
        return file is not None and os.path.normpath(file.name).endswith('/' + self.name)

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
                           inside[0][0].name, inside[0][0].when, shown))

    def add_patch(self, diff, name, breaks):
        starts = [0] + [m.end() for m in re.finditer('\n', self.text)]
        edits = []
        for first, count, _, _, new in hunks(diff):
            # Nothing old means after that line.
            first -= bool(count)
            edits.append((starts[first], starts[first + count], new))
        self.add(edits, 'patch', breaks, name)

    def make_mutations(self, changed):
        """What a machine can do to the lines CHANGED."""
        self.changed = changed
        for self.function in self.functions:
            self.headers = []
            body = self.function.body
            self.last = list(body.get_children())[-1:]
            self.statement(body)
            tokens = list(body.translation_unit.get_tokens(extent=body.extent))
            for i, token in enumerate(tokens):
                self.constant(tokens, i, token)

    def macro_at(self, offset):
        """The end of the macro that begins at or reaches over offset, or 0."""
        return max((e for s, e in self.macros if s <= offset < e), default=0)

    def end(self, cursor):
        """Where its text ends; clang may say that of a macro's argument."""
        end = cursor.extent.end.offset
        return self.macro_at(end) or end

    def is_in_macro(self, cursor):
        """Is it what a macro expands to, and nothing more?"""
        return self.end(cursor) <= self.macro_at(cursor.extent.start.offset)

    def mutate(self, kind, start, end, new, header_end=None, shown=None):
        """One mutation, which puts the new text in place of that from start to end."""
        text = self.text[start:end]
        if any(text.count(a) != text.count(b) for a, b in ('()', '[]', '{}')):
            return
        lines = range(self.line(start), self.line((header_end or end) - 1) + 1)
        if not self.changed.intersection(lines):
            return
        shown = shown or self.text[start:header_end or end]
        shown = ' '.join(re.sub(r'/\*.*?\*/', '', shown, flags=re.S).split())
        self.add([(start, end, new)], kind, shown)

    def end_of(self, cursor):
        """Where a statement ends, its semicolon included."""
        end = self.end(cursor)
        semicolon = re.compile(r'(\s|/\*.*?\*/)*;', re.S).match(self.text, end)
        if semicolon and not (cursor.kind in BLOCKS and
                              self.text[end - 1] == '}' and cursor.kind != K.DO_STMT):
            return semicolon.end()
        if cursor.kind in BLOCKS and self.text[end - 1] not in '};':
            return self.end_of(list(cursor.get_children())[-1])
        return end

    def statement(self, cursor):
        """A statement in a place where it could be left out."""
        start, end = cursor.extent.start.offset, self.end_of(cursor)
        text = self.text[start:end]
        children = list(cursor.get_children())
        if cursor.kind == K.COMPOUND_STMT:
            for c in children:
                self.statement(c)
            return
        if cursor.kind in LABELS:
            self.statement(children[-1])
            return
        if re.match(NOTHING, text):
            return

        bodies = []
        if not self.is_in_macro(cursor):
            if cursor.kind == K.IF_STMT:
                bodies = children[1:]
            elif cursor.kind == K.DO_STMT:
                bodies = children[:1]
            elif cursor.kind in BLOCKS:
                bodies = children[-1:]
        header_end = bodies[0].extent.start.offset if bodies else end
        if cursor.kind == K.DO_STMT and bodies:
            header_end = start + 2
        self.headers.append((start, header_end, cursor))

        changes_nothing = cursor.kind == K.RETURN_STMT and (
            self.function.returns_struct or
            cursor in self.last and re.match(r'return(\s+(0|NULL|false))?\s*;', text))
        if cursor.kind not in NOT_REMOVED and not changes_nothing:
            # It may have a label.
            self.mutate('statement', start, end, '{ if (0) { %s } }' % text, header_end)

        if not self.is_in_macro(cursor):
            from_macro = self.macro_at(start)
            for c in children:
                if c in bodies:
                    self.statement(c)
                elif not from_macro or c.extent.start.offset >= from_macro:
                    self.expression(c, cursor.kind == K.IF_STMT or
                                    (cursor.kind in LOOPS and self.is_condition(cursor, c)))

    def is_condition(self, loop, cursor):
        """Is it the condition of a loop?"""
        text = self.text[loop.extent.start.offset:loop.extent.end.offset]
        if loop.kind != K.FOR_STMT:
            return True
        at = cursor.extent.start.offset - loop.extent.start.offset
        return text[:at].count(';') == 1 and not re.match(r'\s*\)', text[at:])

    def expression(self, cursor, is_condition=False):
        """Conditions in an expression, and in what a declaration begins with."""
        start, end = cursor.extent.start.offset, self.end(cursor)
        if end <= start:
            return
        if is_condition:
            self.mutate('condition', start, end, '(!(%s))' % self.text[start:end])
        if self.is_in_macro(cursor):
            return
        children = list(cursor.get_children())
        operator = ''
        if len(children) > 1:
            operator = self.text[self.end(children[0]):
                                 children[-1].extent.start.offset].strip(' \t\n()')
        is_logical = cursor.kind == K.BINARY_OPERATOR and operator in ('&&', '||')
        for i, c in enumerate(children):
            self.expression(c, is_logical or
                            (cursor.kind == K.CONDITIONAL_OPERATOR and i == 0))
        # a ?: b is no kind of its own, and its first operand comes more than once
        if operator == '?:' and cursor.kind != K.CONDITIONAL_OPERATOR:
            self.mutate('condition', start, end,
                        '({ __auto_type _a = (%s); !_a ? _a : (%s); })' %
                        (self.text[start:self.end(children[0])],
                         self.text[children[-1].extent.start.offset:end]))

    def value_of(self, name, depth=0):
        """Is the name that of a constant?"""
        if name in self.names:
            return True
        define = self.defines.get(name)
        if not define or depth > 4:
            return False
        body = ''.join(t.spelling for t in list(define.get_tokens())[1:])
        match = CONSTANT.match(body)
        if not match:
            return False
        inner = match.group(1)
        return not re.match(r'[A-Za-z_]\w*$', inner) or self.value_of(inner, depth + 1)

    def constant(self, tokens, i, token):
        start, end = token.extent.start.offset, token.extent.end.offset
        name = token.spelling
        header = [h for h in self.headers if h[0] <= start < h[1]]
        if not header or not (NUMBER.match(name) or
                              (re.match(r'[A-Za-z_]\w*$', name) and self.value_of(name))):
            return
        if i + 1 < len(tokens) and tokens[i + 1].spelling == '(':
            return
        begin, stop, cursor = header[-1]
        before = self.text[begin:start]
        # Not the size of an array, nor what has to be known when it is compiled.
        if cursor.kind == K.DECL_STMT and (before.startswith('static ') or '=' not in before):
            return
        if re.search(r'(IS_ENABLED|sizeof)\s*\([^()]*$', before):
            return
        # true + 1 is true
        self.mutate('constant', start, end, '(%s %s 1)' % (name, '-' if name == 'true' else '+'),
                    shown='%s[[%s]]%s' % (before, name, self.text[end:stop]))

    def write(self, tree):
        out = ['extern unsigned int lab_mutant_nr;\n']
        at = 0
        for f in self.functions:
            if f.variants:
                out += [self.text[at:f.start], *f.variants, self.text[f.start:f.open + 1],
                        ' switch (lab_mutant_nr) {%s }' % f.calls]
                at = f.open + 1
        out.append(self.text[at:])
        with open(os.path.join(tree, self.name), 'w', encoding='latin-1') as f:
            f.write(''.join(out))


def parse(tree, name, obj):
    obj = obj or re.sub(r'\.c$', '.o', name)
    directory = os.path.join(tree, 'obj')
    cmd = os.path.join(directory, os.path.dirname(obj), '.' + os.path.basename(obj) + '.cmd')
    with open(cmd, encoding='utf-8') as f:
        words = shlex.split(f.readline().split(':=', 1)[1])
    args = ['-working-directory=' + directory, '-ferror-limit=0', '-w']
    for i, word in enumerate(words):
        if re.match(r'-(I|D|std=|m64|nostdinc|f(short-wchar|unsigned-char))', word):
            args.append(word)
        elif word in ('-include', '-isystem'):
            args += words[i:i + 2]
    source = '../' + re.sub(r'\.o$', '.c', obj)
    unit = cindex.Index.create().parse(
        source, args,
        options=cindex.TranslationUnit.PARSE_DETAILED_PROCESSING_RECORD)
    for d in unit.diagnostics:
        if d.severity >= cindex.Diagnostic.Error:
            print('mutate.py: %s: %s' % (d.location, d.spelling), file=sys.stderr)
            if name in str(d.location.file) or d.severity == cindex.Diagnostic.Fatal:
                sys.exit(1)
    return unit


def hunks(diff):
    """Of each hunk the first line and the number of lines, old and new, and the new text."""
    for hunk in re.split(r'^@@ -', diff, flags=re.M)[1:]:
        place = re.match(r'(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))?', hunk).groups('1')
        new = [line[1:] for line in hunk.splitlines(True) if line.startswith('+')]
        yield (*map(int, place), ''.join(new))


def changed_lines(tree, base, name):
    """The numbers of the lines that differ from those of BASE."""
    diff = subprocess.run(['git', '-C', tree, 'diff', '-U0', base, 'HEAD', '--', name],
                          stdout=subprocess.PIPE, check=True).stdout.decode()
    return {n for _, _, first, count, _ in hunks(diff) for n in range(first, first + count)}


def main():
    if '--help' in sys.argv or len(sys.argv) < 7:
        print(__doc__.strip())
        sys.exit('--help' not in sys.argv and 2)
    base = sys.argv[2]
    # The parser may change the directory.
    tree, to, table_name, diffs = (os.path.abspath(sys.argv[i]) for i in (1, 3, 4, 5))
    table = []
    files = {}
    for arg in sys.argv[6:]:
        name, _, obj = arg.partition('=')
        files[name] = File(tree, name, parse(tree, name, obj), table)
        files[name].make_mutations(changed_lines(tree, base, name))
    for mutation in sorted(os.listdir(diffs)):
        with open(os.path.join(diffs, mutation), encoding='latin-1') as f:
            breaks, diff = f.read().split('\n', 1)
        name = re.search(r'^\+\+\+ b/(.*)', diff, re.M).group(1)
        if name not in files:
            files[name] = File(tree, name, parse(tree, name, None), table)
        files[name].add_patch(diff, mutation, breaks)
    for f in files.values():
        f.write(to)
    with open(table_name, 'w', encoding='utf-8') as f:
        for row in table:
            f.write('\t'.join(map(str, row)) + '\n')


main()
