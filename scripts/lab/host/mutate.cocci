// SPDX-License-Identifier: GPL-2.0-only
// For mutate.py: prints the places of a file's statements and conditions.
@initialize:python@
@@
def places(kind, p):
    for q in p:
        print(kind, q.line, q.column, q.line_end, q.column_end)

@a@
statement S;
position p;
@@
S@p
@script:python@
p << a.p;
@@
places('statement', p)

@b@
expression E, F, G;
statement S, T;
position p;
@@
(
if (E@p) S else T
|
if (E@p) S
|
while (E@p) S
|
for (F; E@p; G) S
|
for (; E@p; F) S
)
@script:python@
p << b.p;
@@
places('condition', p)

@c@
expression E, F;
binary operator op = {&&, ||};
position p, q;
@@
E@p op F@q
@script:python@
p << c.p;
q << c.q;
@@
places('condition', p + q)

@d@
expression E, F, G;
position p;
@@
(
E@p ? F : G
|
E@p ?: F
)
@script:python@
p << d.p;
@@
places('condition', p)
