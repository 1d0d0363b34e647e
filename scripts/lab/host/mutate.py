#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""
Makes mutations of C files and compiles all of them into the same kernel.

usage: mutate.py TREE BASE TO TABLE FILE[=OBJECT]...

Writes each FILE of the kernel work tree TREE to the tree TO, so that every statement
can be left out, every condition negated and every constant be one more, each when
lab_mutant(NUMBER) says so. Of a file that the commit BASE has only the lines that
differ are touched. OBJECT (default: FILE with .o) is the object in TREE/obj whose
command line, as make left it, tells how to parse FILE; a header names the object
of a file that includes it.

TABLE gets a line for each mutation, with tabs between: number, file, line, kind
("statement", "condition", "constant"), function, "boot" for a function that runs
only at boot, else "any", and the source text, with a constant in [[ ]].

What is a statement is told by clang's parser. What a macro expands to is left
alone: an argument's constants apart, a macro is one thing, as it is for a reader.
"""

import os
import re
import shlex
import subprocess
import sys

from clang import cindex
from clang.cindex import CursorKind as K

# These do nothing at run time, or only when a debug option is set.
NOTHING = r'(BUILD_BUG_ON\w*|__acquires?|__releases?|pr_debug|lockdep_assert\w*)\s*\('
# What can be left out of a file is none of these.
NOT_REMOVED = {K.COMPOUND_STMT, K.DECL_STMT, K.NULL_STMT, K.CASE_STMT,
               K.DEFAULT_STMT, K.LABEL_STMT}
LABELS = {K.CASE_STMT, K.DEFAULT_STMT, K.LABEL_STMT}
LOOPS = {K.FOR_STMT, K.WHILE_STMT, K.DO_STMT}
BLOCKS = LOOPS | {K.IF_STMT, K.SWITCH_STMT}
NUMBER = re.compile(r'^(0[xX][0-9a-fA-F]+|[0-9]+)[uUlL]*$')
# A macro's body that is a number, a bit or another name, maybe in parentheses.
CONSTANT = re.compile(r'^\(*(-?(?:0x[0-9a-f]+|[0-9]+)[ul]*|1\w*<<\w+|[a-z_]\w*)\)*$', re.I)


class File:
    """The mutations of one file."""

    def __init__(self, tree, name, changed, unit, table):
        self.name = name
        self.table = table
        self.changed = changed
        with open(os.path.join(tree, name), 'rb') as f:
            self.text = f.read()
        self.edits = []
        self.macros = []
        self.names = set()
        self.defines = {}
        for c in unit.cursor.get_children():
            if c.kind == K.ENUM_DECL:
                self.names.update(e.spelling for e in c.get_children())
            elif c.kind == K.MACRO_DEFINITION:
                self.defines[c.spelling] = c
            elif c.kind == K.MACRO_INSTANTIATION and self.is_here(c):
                self.macros.append((c.extent.start.offset, c.extent.end.offset))
        for c in unit.cursor.get_children():
            if c.kind == K.FUNCTION_DECL and c.is_definition() and self.is_here(c):
                self.function(c)

    def is_here(self, cursor):
        file = cursor.location.file
        return file is not None and os.path.normpath(file.name).endswith('/' + self.name)

    def src(self, start, end):
        return self.text[start:end].decode()

    def line(self, offset):
        return self.text.count(b'\n', 0, offset) + 1

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

    def mutate(self, kind, start, end, before, after, header_end=None, shown=None):
        """One mutation of the text between start and end."""
        text = self.src(start, end)
        if any(text.count(a) != text.count(b) for a, b in ('()', '[]', '{}')):
            return
        lines = range(self.line(start), self.line((header_end or end) - 1) + 1)
        if self.changed is not None and not self.changed.intersection(lines):
            return
        n = len(self.table) + 1
        shown = shown or self.src(start, header_end or end)
        self.table.append((n, self.name, lines[0], kind, self.function_name, self.when,
                           ' '.join(re.sub(r'/\*.*?\*/', '', shown, flags=re.S).split())))
        self.edits.append((start, end, before.replace('@', str(n)),
                           after.replace('@', str(n))))

    def function(self, cursor):
        body = list(cursor.get_children())[-1]
        start = body.extent.start.offset
        if body.kind != K.COMPOUND_STMT or self.text[start:start + 1] != b'{':
            return
        self.function_name = cursor.spelling
        head = self.src(cursor.extent.start.offset, start)
        self.when = 'boot' if re.search(r'\b__init\b', head) else 'any'
        self.headers = []
        self.last = list(body.get_children())[-1:]
        self.statement(body)
        tokens = list(cursor.translation_unit.get_tokens(extent=body.extent))
        for i, token in enumerate(tokens):
            self.constant(tokens, i, token)

    def end_of(self, cursor):
        """Where a statement ends, its semicolon included."""
        end = self.end(cursor)
        semicolon = re.compile(rb'(\s|/\*.*?\*/)*;', re.S).match(self.text, end)
        if semicolon and not (cursor.kind in BLOCKS and
                              self.text[end - 1:end] == b'}' and cursor.kind != K.DO_STMT):
            return semicolon.end()
        if cursor.kind in BLOCKS and self.text[end - 1:end] not in (b'}', b';'):
            return self.end_of(list(cursor.get_children())[-1])
        return end

    def statement(self, cursor):
        """A statement in a place where it could be left out."""
        start, end = cursor.extent.start.offset, self.end_of(cursor)
        children = list(cursor.get_children())
        if cursor.kind == K.COMPOUND_STMT:
            for c in children:
                self.statement(c)
            return
        if cursor.kind in LABELS:
            self.statement(children[-1])
            return
        if re.match(NOTHING, self.src(start, end)):
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

        text = self.src(start, end)
        if cursor.kind == K.RETURN_STMT and cursor in self.last:
            # Something has to be returned: 0, unless that is what is.
            if children and not re.match(r'return\s+(0|NULL|false)\s*;', text):
                expr = re.match(r'return\b\s*', text).end()
                last = len(text[:-1].rstrip())
                value = text[expr:last]
                self.mutate('statement', start + expr, start + last,
                            'lab_mutant(@) ? (typeof(%s))0 : (' % value, ')')
        elif cursor.kind not in NOT_REMOVED:
            self.mutate('statement', start, end, '{ if (!lab_mutant(@)) { ', ' } }',
                        header_end if bodies else None)

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
        text = self.src(loop.extent.start.offset, loop.extent.end.offset)
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
            self.mutate('condition', start, end, '(lab_mutant(@) != !!(', '))')
        if self.is_in_macro(cursor):
            return
        children = list(cursor.get_children())
        operator = ''
        if cursor.kind == K.BINARY_OPERATOR and len(children) == 2:
            operator = self.src(self.end(children[0]),
                                children[1].extent.start.offset).strip(' \t\n()')
        for i, c in enumerate(children):
            self.expression(c, operator in ('&&', '||') or
                            (cursor.kind == K.CONDITIONAL_OPERATOR and i == 0))
        # a ?: b is no kind of its own, and its first operand comes more than once
        gnu = re.match(r'\s*\?:\s*$', self.src(self.end(children[0]),
                                               children[-1].extent.start.offset)) \
            if len(children) > 1 and cursor.kind != K.CONDITIONAL_OPERATOR else None
        if gnu:
            a, b = children[0].extent.start.offset, children[-1].extent.start.offset
            a_end = self.end(children[0])
            n = len(self.table)
            self.mutate('condition', a, end, '({ __auto_type _a = (', '); })')
            if len(self.table) > n:
                self.edits.append((a_end, b, None,
                                   '); lab_mutant(%d) != !!_a ? _a : (' % (n + 1)))

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
        text = self.src(begin, stop)
        if cursor.kind == K.DECL_STMT:
            # Not the size of an array, nor what has to be known when it is compiled.
            if re.match(r'static\b', text) or '=' not in self.src(begin, start):
                return
        if re.search(r'(IS_ENABLED|sizeof)\s*\([^()]*$', self.src(begin, start)):
            return
        # true + 1 is true
        self.mutate('constant', start, end, '(',
                    ' %s lab_mutant(@))' % ('-' if name == 'true' else '+'),
                    shown='%s[[%s]]%s' % (self.src(begin, start), name, self.src(end, stop)))

    def write(self, tree):
        out = []
        at = 0
        points = []
        for order, (start, end, before, after) in enumerate(self.edits):
            if before is None:
                points.append(((start, 1, 0, 0), start, end, after))
                continue
            # At one place: what ends there, the inner ones first; then what begins.
            points.append(((start, 2, -end, order), start, start, before))
            points.append(((end, 0, -start, -order), end, end, after))
        for _, start, end, text in sorted(points):
            out += [self.text[at:start].decode(), text]
            at = end
        out.append(self.text[at:].decode())
        with open(os.path.join(tree, self.name), 'w', encoding='utf-8') as f:
            f.write('#include <linux/lab_mutant.h>\n')
            f.write(''.join(out))


def parse(tree, name, obj):
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


def changed_lines(tree, base, name):
    """The numbers of the lines that differ from those of BASE, or None for all."""
    if subprocess.run(['git', '-C', tree, 'cat-file', '-e', '%s:%s' % (base, name)],
                      stderr=subprocess.DEVNULL, check=False).returncode:
        return None
    diff = subprocess.run(['git', '-C', tree, 'diff', '-U0', base, 'HEAD', '--', name],
                          stdout=subprocess.PIPE, check=True).stdout.decode()
    lines = set()
    for hunk in re.finditer(r'^@@ \S+ \+(\d+)(?:,(\d+))? @@', diff, re.M):
        first = int(hunk.group(1))
        lines.update(range(first, first + int(hunk.group(2) or 1)))
    return lines


def main():
    if '--help' in sys.argv or len(sys.argv) < 6:
        print(__doc__.strip())
        sys.exit('--help' not in sys.argv and 2)
    base = sys.argv[2]
    # The parser may change the directory.
    tree, to, table_name = (os.path.abspath(sys.argv[i]) for i in (1, 3, 4))
    table = []
    files = []
    for arg in sys.argv[5:]:
        name, _, obj = arg.partition('=')
        unit = parse(tree, name, obj or re.sub(r'\.c$', '.o', name))
        files.append(File(tree, name, changed_lines(tree, base, name), unit, table))
    for f in files:
        f.write(to)
    with open(table_name, 'w', encoding='utf-8') as f:
        for row in table:
            f.write('\t'.join(map(str, row)) + '\n')


main()
