"""Training the momentum transformer: tasks, variants, runs of several seeds, and what they say about the
paper.

`tasks` has the tasks, `variants` their attentions and connections by name, `settings` what one training is,
`trainer` does it in a `worker` process, `runner` keeps those and the folder; `results` reads a folder,
`claims` holds what the paper says against it. Only `trainer`, `step`, `optimizer` and `checkpoint` import
torch.
"""
