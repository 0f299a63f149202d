"""The gateway: the tree by HTTP, beside the mount and never in its way. A process of its own, `recfs serve`.

It works on the mount by ordinary file calls, as an ordinary user, and asks the daemon by its control socket, as any
application could: it knows `recfs.client` and `recfs.core`, and nothing of the daemon. It takes the extra `web`
(`web` of pyproject.toml): FastAPI on uvicorn, so asyncio. docs/gateway.md says what it offers.

settings    what it is told                    context    what handlers work with: settings, tree, daemon, limiters
problems    every refusal, in one table        answers    JSON
description OpenAPI, and what holds for all routes
files       files without following links      limiters   threads, and how many of each kind
daemon      questions to the daemon            accesses   who asked for what, for audit log and metrics
who/        who may: tokens, sessions, links   recordings/   lists, bytes, removal
health      /healthz, /readyz, /metrics        app        all routes together
serving     uvicorn, with deadlines for whoever is slow (deadlines), and headers that are refused (framing)
copying     bytes from a file into a connection, past the event loop
"""
