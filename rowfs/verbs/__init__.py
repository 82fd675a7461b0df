"""The verbs, each declared once: command line, socket, documents, completion and man pages come from these modules.

To add a verb: declare it in the module of what it is about and list it in `rowfs.verbs.all`; carry it out where `place`
and `method` say; test it. `make docs` writes it into the documents.
"""
