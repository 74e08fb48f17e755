"""Bends its own interpreter: whoever comes after it must not feel that."""
import builtins
import os
import sys

from attempts import attempt, hostile

bot = hostile()


class Hook:
    def find_spec(self, name, path=None, target=None):
        return None


@attempt("hooks in its own imports", process="nothing")
def hook(_):
    sys.meta_path.insert(0, Hook())
    sys.path_hooks.insert(0, lambda path: (_ for _ in ()).throw(ImportError))
    builtins.print = lambda *_, **__: None
    return "nothing"


@attempt("another protocol for everybody", process="nothing")
def patched(_):
    from loquat import protocol

    protocol.LARGEST = 1 << 40
    return "nothing"


attempt("compiled code beside the library's", root="EROFS", files="EACCES")(lambda _: open(os.path.dirname(os.__file__) + "/__pycache__/json.cpython-311.pyc", "wb"))
attempt("a file that every interpreter reads", root="EROFS", files="EACCES")(lambda _: open(os.path.dirname(__import__("asyncpg").__path__[0]) + "/mine.pth", "w"))
attempt("a module that every interpreter imports", root="EROFS", files="EACCES")(lambda _: open(os.path.dirname(os.__file__) + "/usercustomize.py", "w"))
