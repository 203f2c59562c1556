"""Programs of about three lines, with the names that they read, write and delete: the truth that analysis must meet."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from textwrap import dedent


@dataclass(frozen=True)
class Case:
    """One cell. Names are written with blanks between; ``run`` says whether a test may execute it.

    ``deferred`` is what the functions and classes that it leaves behind read, ``flags`` what else must be true.
    """

    body: str
    reads: str = ""
    writes: str = ""
    deletes: str = ""
    run: bool = True
    flags: dict[str, object] = field(default_factory=dict)


def case(body: str, reads: str = "", writes: str = "", deletes: str = "", *, run: bool = True, **flags: object) -> Case:
    return Case(dedent(body).strip("\n"), reads, writes, deletes, run, flags)


def words(**names: str) -> dict[str, frozenset[str]]:
    """Name → the names in a string."""
    return {name: frozenset(text.split()) for name, text in names.items()}


ASSIGNMENTS = [
    case("x = 1", writes="x", binds="x"),
    case("x = y", "y", "x"),
    case("x += 1", "x", "x"),
    case("x = x + 1", "x", "x"),
    case("x = 1\nx += y", "y", "x"),
    case("a = b = c", "c", "a b"),
    case("a, (b, *c) = d", "d", "a b c"),
    case("[a, b] = b, a", "a b", "a b"),
    case("x: int", "", "", binds=""),
    case("x: int = y", "y", "x"),
    case("x: Model = 1", "Model", "x"),
    case("obj.attr: int = y", "obj y", ""),
    case("df['x'] = y", "df y", ""),
    case("obj.a.b = 1", "obj", ""),
    case("xs[i] += 1", "i xs", ""),
    case("xs.append(x)", "x xs", "", passed="x xs"),
    case("d[k], v = 1, k", "d k", "v"),
    case("a = 1\na.b = 2", "", "a", run=False),
    case("x = (y := f(z)) + y", "f z", "x y"),
    case("print(x := 1, x)", "", "x", optional="print"),
    case("a if (b := c) else b", "a c", "b"),
    case("a or (b := c)\nb", "a b c", "b", binds=""),
    case("a < (b := c) < (d := e)\nb, d", "a c d e", "b d", binds="b"),
    case("x = yes and (y := 1)\nz = y", "y yes", "x y z"),
    case("x = 1 if c else y", "c y", "x"),
    case("_x = 1\nprint(_x)", "", "_x", optional="print"),
    case("list = [1]\nlist", "", "list", optional=""),
    case("xs = list(ys)", "ys", "xs", optional="list"),
    case("x = {**a, 'k': b, c: [*d]}", "a b c d", "x"),
    case("x = y[a:b:c, ...]", "a b c y", "x"),
]

DELETIONS = [
    case("del x", "x", "", "x", removes="x"),
    case("x = 1\ndel x", "", "x", "x", removes="x", binds=""),
    case("x = 1\ndel x\nx = 2", "", "x", "x", removes="", binds="x"),
    case("del d[k]", "d k", ""),
    case("del obj.attr", "obj", ""),
    case("del a, b[0]", "a b", "", "a", removes="a"),
    case("if c:\n    del x", "c x", "", "x", removes=""),
    case("x = 1\nif c:\n    del x\ny = x", "c x", "x y", "x", run=False),
    case("for x in xs:\n    pass\ndel x", "x xs", "x", "x"),
    case("x = 1\nfor i in xs:\n    print(x)\n    del x", "x xs", "i x", "x", run=False),
]

BRANCHES = [
    case("if c:\n    y = 1\nprint(y)", "c y", "y", binds=""),
    case("if c:\n    y = 1\nelse:\n    y = 2\nprint(y)", "c", "y", binds="y"),
    case("if a:\n    y = 1\nelif b:\n    y = 2\ny", "a b y", "y"),
    case("if a:\n    y = 1\nelse:\n    raise E\ny", "E a", "y", binds="y"),
    case("if not y:\n    y = f()", "f y", "y"),
    case("if (n := len(xs)) > 3:\n    n\nn", "xs", "n", optional="len", binds="n"),
    case("for x in xs:\n    y = x\nprint(x, y)", "x xs y", "x y", binds=""),
    case("for x in x:\n    pass", "x", "x"),
    case("for a, (b, c) in zs:\n    a, b, c", "zs", "a b c"),
    case("for i in xs:\n    found = i\n    break\nelse:\n    found = None\nfound", "xs", "found i", binds="found"),
    case("for i in xs:\n    pass\nelse:\n    n = 1\nn", "xs", "i n", binds="n"),
    case("for i in xs:\n    if i:\n        break\nelse:\n    n = 1\nn", "n xs", "i n", run=False),
    case("for i in xs:\n    if i:\n        continue\n    y = 1\n    y", "xs", "i y"),
    case("for d['k'] in xs:\n    pass", "d xs", ""),
    case("while c:\n    x = 1\n    break\nx", "c x", "x"),
    case("while True:\n    x = f()\n    if x:\n        break\nx", "f", "x", binds="x"),
    case("while n < 3:\n    n += 1", "n", "n", run=False),
    case("while (line := f()):\n    print(line)\n    break\nelse:\n    z = line", "f", "line z", binds="line"),
    case("while c:\n    break\nelse:\n    y = 1\ny", "c y", "y"),
    case("for i in xs:\n    if i:\n        print(last)\n    last = i", "last xs", "i last"),
    case("last = 0\nfor i in xs:\n    print(last)\n    last = i", "xs", "i last"),
    case("raise SystemExit\nx", "", "", run=False),
    case("assert x, y", "x y", ""),
    case("assert (n := f())\nn", "f", "n"),
]

ERRORS = [
    case("try:\n    x\nexcept NameError:\n    x = 1\nx", "x", "x", optional="NameError"),
    case("try:\n    x = f()\nexcept E:\n    print(x)", "E f x", "x"),
    case("try:\n    x = f()\nexcept E:\n    x = 0\nx", "E f", "x", binds="x"),
    case("try:\n    x = f()\nfinally:\n    print(x)", "f x", "x", binds="x"),
    case("try:\n    x = f()\nexcept E as e:\n    y = e\nx", "E f x", "e x y", "e"),
    case("try:\n    f()\nexcept E as e:\n    pass\nprint(e)", "E e f", "e", "e", run=False),
    case("try:\n    x = 1\nexcept E:\n    raise\nx", "E", "x", binds="x"),
    case("try:\n    f()\nexcept E:\n    pass\nelse:\n    y = 1\ny", "E f y", "y"),
    case("try:\n    pass\nfinally:\n    z = 1\nz", "", "z", binds="z"),
    case("try:\n    x = f()\n    y = g(x)\nexcept (A, B):\n    x", "A B f g x", "x y"),
    case("try:\n    f()\nexcept* E as group:\n    n = group", "E f", "group n", "group"),
    case("try:\n    import fast as impl\nexcept ImportError:\n    impl = None\nimpl", "", "impl", binds="impl"),
    case("try:\n    a = 1\nexcept E:\n    b = 1\nelse:\n    b = a\nb", "E", "a b", binds="b"),
    case("x = 1\ntry:\n    del x\n    f()\nexcept E:\n    x", "E f x", "x", "x"),
    case("for i in xs:\n    try:\n        y = f(i)\n    except E:\n        continue\n    print(y)", "E f xs", "i y"),
    case("with suppress(E):\n    x = f()\nx", "E f suppress x", "x", run=False),
    case("with open(p) as f:\n    d = f.read()\nd", "p", "d f", optional="open", run=False, binds="d f"),
    case("with a as b, b.c as d:\n    d", "a", "b d"),
    case("with (a as x, y):\n    x", "a y", "x"),
    case("with lock:\n    n += 1", "lock n", "n"),
    case("with a as (b, c.d):\n    pass", "a c", "b"),
]

FUNCTIONS = [
    case("def f():\n    return K", "", "f", deferred=words(f="K")),
    case("def f():\n    return K\nf()", "K", "f"),
    case("def f():\n    return K\nf()\nK = 2", "K", "K f"),
    case("K = 2\ndef f():\n    return K\nf()", "", "K f"),
    case("def f():\n    return K\nK = 2\nf()", "", "K f"),
    case("def f(x=D):\n    return x", "D", "f", deferred=words(f="")),
    case("def f(*a, k=D, **kw) -> R:\n    return a, k, kw", "D R", "f"),
    case("def f(x: T):\n    y: U = x\n    return y", "T", "f", deferred=words(f="")),
    case("@dec\ndef f():\n    return K", "K dec", "f"),
    case("@dec(a)\nclass C:\n    pass", "a dec", "C"),
    case("@agent.tool\ndef f():\n    return g()\ndef g():\n    return 1", "agent", "f g"),
    case("@agent.tool\ndef f():\n    return K\nagent.run()", "K agent", "f"),
    case("@cache\ndef f():\n    return K", "cache", "f", deferred=words(f="K")),
    case("def f(n):\n    return f(n - 1) if n else 0\nf(3)", "", "f"),
    case("def even(n):\n    return odd(n)\ndef odd(n):\n    return even(n)", "", "even odd"),
    case("def a():\n    return b()\ndef b():\n    return K\na()", "K", "a b"),
    case("def a():\n    return b()\na()\ndef b():\n    return 1", "b", "a b"),
    case("def f():\n    x = 1\n    def g():\n        return x + y\n    return g\nf()", "y", "f"),
    case("def f():\n    x = 1\n    def g():\n        nonlocal x\n        x += K\n    g()\nf()", "K", "f"),
    case("def f():\n    global n\n    n = 1", "", "f n", binds="f"),
    case("def f():\n    global n\n    n += 1\nf()", "n", "f n"),
    case("def f():\n    global n\n    def g():\n        return n\n    return g()\nf()", "n", "f"),
    case("def f():\n    print(x)\n    x = 1", "", "f", deferred=words(f="")),
    case("def f():\n    import os.path\n    return os", "", "f", deferred=words(f="")),
    case("def f():\n    try:\n        pass\n    except E as e:\n        return e", "", "f", deferred=words(f="E")),
    case("def f(x):\n    del x\n    return y", "", "f", deferred=words(f="y")),
    case("async def f():\n    return await g()", "", "f", deferred=words(f="g"), awaits=False),
    case("def f():\n    yield from xs", "", "f", deferred=words(f="xs")),
    case("def f():\n    return [y for x in xs if (y := g(x))], y", "", "f", deferred=words(f="g xs")),
    case("if c:\n    def f():\n        return K\nf()", "K c f", "f", run=False),
    case("def f():\n    return A\nf = 3\nf", "", "f", deferred={}),
    case("def f():\n    return A\ng = f\ng()", "A", "f g"),
    case("f = lambda x: x + K", "", "f", deferred=words(f="K")),
    case("f = lambda x, y=D: x\nf(1)", "D", "f"),
    case("ys = sorted(xs, key=lambda x: w[x])", "w xs", "ys", optional="sorted", run=False),
    case("fs = [lambda: i for i in xs]", "xs", "fs"),
    case("fs = [lambda: j for i in xs]", "j xs", "fs"),
    case("(lambda a: lambda b: a + b + c)(1)(2)", "c", ""),
    case("def f():\n    match v:\n        case [a, *b]:\n            return a, b, c", "", "f", deferred=words(f="c v")),
    case("def f():\n    with m as n:\n        return n", "", "f", deferred=words(f="m")),
    case("def f():\n    for i in r:\n        pass\n    return i", "", "f", deferred=words(f="r")),
    case("def f(n):\n    class C:\n        a = n\n        b = a + m\n    return C", "", "f", deferred=words(f="m")),
    case("def f(n):\n    class C:\n        n = n\n    return C", "", "f", deferred=words(f="")),
    case("def f():\n    def g(n):\n        return h(n)\n    return g", "", "f", deferred=words(f="h"), passed=""),
    case("def f():\n    return register(helper)", "", "f", passed="helper"),
]

CLASSES = [
    case("class C(Base, metaclass=M):\n    pass", "Base M", "C", run=False),
    case("class C:\n    x = 1\n    y = x", "", "C"),
    case("class C:\n    y = x\n    x = 1", "x", "C"),
    case("x = 1\nclass C:\n    y = x", "", "C x"),
    case("class C:\n    x = 1\n    ys = [x for _ in range(3)]", "x", "C", optional="range"),
    case("class C:\n    xs = [1]\n    ys = [x for x in xs]", "", "C"),
    case("class C:\n    x = 1\n    def m(self):\n        return x", "", "C", deferred=words(C="x")),
    case("class C:\n    def m(self):\n        return K\nC().m()", "K", "C"),
    case("class C:\n    def m(self):\n        return super().m(), __class__", "", "C", deferred=words(C="")),
    case("class C:\n    def __m(self):\n        return __x", "", "C", deferred=words(C="_C__x")),
    case("class C:\n    field: T = D", "D T", "C"),
    case("class C:\n    field: 'Later'", "", "C"),
    case("class A:\n    class B:\n        x = y", "y", "A"),
    case("class A:\n    x = 1\n    class B:\n        y = x", "x", "A"),
    case("@dataclass\nclass P:\n    x: int = 0", "dataclass", "P"),
    case("class C:\n    def helper():\n        return K\n    x = helper()", "K", "C"),
    case("class C:\n    if c:\n        x = 1\n    y = x", "c x", "C"),
    case("class C:\n    global n\n    n = 1", "", "C n"),
    case("class C:\n    x = 1\n    del x\n    y = x", "x", "C"),
]

COMPREHENSIONS = [
    case("[x for x in xs]", "xs", ""),
    case("[x * k for x in xs if x > m]", "k m xs", ""),
    case("{a: b for a, b in ps}", "ps", ""),
    case("{x for row in m for x in row}", "m", ""),
    case("[y for x in xs for y in ys]", "xs ys", ""),
    case("[x for x in x]", "x", ""),
    case("any((hit := x) for x in xs)\nhit", "hit xs", "hit", optional="any", run=False),
    case("[(last, last := x) for x in xs]", "last xs", "last"),
    case("[y for x in xs if (y := f(x))]", "f xs", "y", binds=""),
    case("g = (x for x in xs)", "xs", "g"),
    case("sum(x for x in xs if x in ok)", "ok xs", "", optional="sum", run=False),
    case("[[y + x for y in x] for x in xs]", "xs", ""),
    case("{**{k: v for k, v in a}}", "a", ""),
    case("[f(x) for f in fs]", "fs x", ""),
]

IMPORTS = [
    case("import json", "", "json", imports=("json",)),
    case("import os.path", "", "os", imports=("os.path",)),
    case("import os.path as p", "", "p", imports=("os.path",)),
    case("from json import dumps as d, loads", "", "d loads", imports=("json",)),
    case("from . import x", "", "x", imports=(".",), run=False),
    case("from ..pkg import y as z", "", "z", imports=("..pkg",), run=False),
    case("from math import *\nsqrt(x)", "sqrt x", "", star_imports=("math",), run=False),
    case("if c:\n    import json\njson", "c json", "json"),
    case("from __future__ import annotations\ndef f(x: Later): ...", "", "annotations f", deferred=words(f="Later")),
    case("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import ast", "", "TYPE_CHECKING ast"),
]

MATCHES = [
    case("match v:\n    case 1:\n        a = 1\na", "a v", "a"),
    case("match v:\n    case 1:\n        a = 1\n    case _:\n        a = 2\na", "v", "a", binds="a"),
    case("match v:\n    case [x, *rest]:\n        x, rest", "v", "rest x"),
    case("match v:\n    case {'k': x, **rest}:\n        x, rest", "v", "rest x"),
    case("match v:\n    case Point(x=0, y=yy):\n        yy", "Point v", "yy", run=False),
    case("match v:\n    case Color.RED:\n        pass", "Color v", ""),
    case(
        "match v:\n    case x if x > limit:\n        y = x\n    case other:\n        y = other\ny",
        "limit v",
        "other x y",
    ),
    case("match v:\n    case [x] | (x, _):\n        x", "v", "x"),
    case("match v:\n    case [int() as n]:\n        n", "v", "n", optional="int"),
    case("match v:\n    case x if ok:\n        pass\nx", "ok v", "x", binds="x"),
]

ASYNC = [
    case("x = await f(y)", "f y", "x", awaits=True, run=False),
    case("async for x in xs:\n    y = x", "xs", "x y", awaits=True, run=False),
    case("async with a as b:\n    b", "a", "b", awaits=True, run=False),
    case("[x async for x in xs]", "xs", "", awaits=True, run=False),
    case("[await f(x) for x in xs]", "f xs", "", awaits=True, run=False),
    case("g = (x async for x in xs)", "xs", "g", awaits=False, run=False),
    case("async def f():\n    async with a:\n        await b\nawait f()", "a b", "f", awaits=True, run=False),
    case("x = 1", "", "x", awaits=False, shell=False, magics=()),
]

STRINGS = [
    case("f'{x} {y!r:>{w}}'", "w x y", ""),
    case("f'{x:{f\"{y}\"}}'", "x y", ""),
    case("f'{(n := g())} {n}'", "g", "n"),
    case("f'{[k for k in ks]}{k}'", "k ks", ""),
    case("f'{x=}'", "x", ""),
    case("s = 'x {y}'", "", "s"),
]

IPYTHON = [
    case("%time y = f(x)", "f x", "y", magics=("time",)),
    case("%%time\ny = f(x)\nz = y", "f x", "y z", magics=("time",)),
    case("%%time\n%time x = g()", "g", "x", magics=("time", "time")),
    case("%timeit -n 10 -r 3 f(x)", "f x", ""),
    case("t = %timeit -o y = f(x)", "f x", "t", magics=("timeit",)),
    case("%%timeit n = 3\ng(n, m)", "g m", ""),
    case("%%capture out --no-stderr\nz = f(x)", "f x", "out z", magics=("capture",)),
    case("%prun -l 5 f(x)", "f x", ""),
    case("!ls {p} $q", "", "", shell=True, optional="p q"),
    case("files = !ls {root}", "", "files", shell=True, optional="root"),
    case("!awk '{print $1}' {data['file']}", "", "", shell=True, optional="data"),
    case("!echo $$HOME", "", "", shell=True, optional=""),
    case("%%bash\necho $x", "", "", shell=True, magics=("bash",)),
    case("%cd {folder}", "", "", magics=("cd",), optional="folder", shell=False),
    case("%matplotlib inline\nx = y", "y", "x", magics=("matplotlib",)),
    case("x?", "", "", magics=("pinfo",)),
    case("\n%%time\nx = y", "y", "x", magics=("time",)),
    case("%%html\n<b>x</b>", "", "", magics=("html",)),
    case("if c:\n    %time x = f()\nx", "c f x", "x"),
    case("%time -x", "x", ""),
    case("%%timeit -v kept\nf()", "f", "kept"),
    case("get_ipython().run_line_magic(name, '')", "name", "", dynamic="get_ipython"),
]

UNSEEN = [
    case("exec(code)", "code", "", dynamic="exec", optional="exec", run=False),
    case("x = eval('y')", "", "x", dynamic="eval", run=False),
    case("globals()['x'] = 1", "", "", dynamic="globals", run=False),
    case("def f():\n    return locals()", "", "f", dynamic="locals"),
    case("eval = f\neval(x)", "f x", "eval", dynamic=""),
    case("m = __import__(name)", "name", "m", dynamic="__import__", run=False),
    case("x = _ + 1", "", "x", history="_", run=False),
    case("Out[3], _i2, In", "", "", history="In Out _i2", run=False),
    case("for _ in xs:\n    print(_)", "xs", "_", history=""),
    case("print(__name__, __file__)", "", "", optional="__file__ __name__ print"),
]

MODERN = [
    case("type Alias = list[T]", "", "Alias", deferred=words(Alias="T"), run=False),
    case("type Pair[A] = tuple[A, B]", "", "Pair", deferred=words(Pair="B"), run=False),
    case("def f[T](x: T, y: U) -> T:\n    return x", "U", "f", run=False),
    case("class Box[T](Base[T]):\n    item: T\n    other: U", "Base U", "Box", run=False),
]

CASES = [
    *(ASSIGNMENTS + DELETIONS + BRANCHES + ERRORS + FUNCTIONS + CLASSES + COMPREHENSIONS + IMPORTS + MATCHES),
    *(ASYNC + STRINGS + IPYTHON + UNSEEN),
    *(MODERN if sys.version_info >= (3, 12) else []),
]
