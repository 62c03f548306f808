"""Following what is recorded here: a history of verdicts, feeds of it, and digests of it by e-mail.

`history` notices what changed, `feeds` and `digest` tell it, `subscribers` keeps who wants to be told, `mail` sends.
Nothing here needs the web server: `paperworks digest` works without it.
"""
