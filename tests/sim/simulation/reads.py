"""What the statements that read, and those about large values and flows, do; see `statements`."""

from __future__ import annotations

from simulation.database import Transaction
from simulation.models import P, held, model
from simulation.tables import Tables

# --- reading ---


@model("snapshots_of")
def snapshots_of(t: Transaction, tables: Tables, p: P) -> list[P]:
    return [tables.snapshot[id_] for id_ in p["ids"] if id_ in tables.snapshot]


@model("journal_of")
def journal_of(t: Transaction, tables: Tables, p: P) -> list[P]:
    rows = [row for row in tables.journal.get(p["id"], ()) if row["seq"] > p["after"]]
    return sorted(rows, key=lambda row: row["seq"])[: p["limit"]]


@model("journal_written")
def journal_written(t: Transaction, tables: Tables, p: P) -> list[P]:
    wanted = list(zip(p["ids"], p["seqs"], strict=True))
    found = [(id_, seq, tables.keys.get((id_, seq))) for id_, seq in dict.fromkeys(wanted)]
    return [{"entity_id": id_, "seq": seq} for id_, seq, row in found if row is not None and row["instance"] == p["me"]]


@model("entity_end")
def entity_end(t: Transaction, tables: Tables, p: P) -> list[P]:
    row = tables.entity.get(p["id"])
    return [] if row is None else [{"ended_at": row["ended_at"], "seq": row["seq"]}]


_RELAYED = ("tenant", "user_id", "parent_id", "trace_id", "correlation_id")


def _with_source(tables: Tables, row: P) -> P:
    entity = tables.entity[row["entity_id"]]
    return {**row, **{name: entity[name] for name in _RELAYED}}


@model("journal_after")
def journal_after(t: Transaction, tables: Tables, p: P) -> list[P]:
    rows = [
        row
        for row in tables.by_instance.get(p["instance"], ())
        if row["position"] > p["after"] and row["entity_id"] in tables.entity
    ]
    rows.sort(key=lambda row: row["position"])
    return [_with_source(tables, row) for row in rows[: p["limit"]]]


@model("journal_page")
def journal_page(t: Transaction, tables: Tables, p: P) -> list[P]:
    after = (p["after_id"], p["after_seq"])
    keys = sorted(key for key in tables.keys if key > after and key[0] in tables.entity)
    return [_with_source(tables, tables.keys[key]) for key in keys[: p["limit"]]]


@model("row")
def one_row(t: Transaction, tables: Tables, p: P) -> list[P]:
    row = tables.entity.get(p["id"])
    return [] if row is None else [row]


@model("count_states")
def count_states(t: Transaction, tables: Tables, p: P) -> list[P]:
    counts: dict[str, int] = {}
    for row in tables.entity.values():
        if row["ended_at"] is None:
            counts[row["state"]] = counts.get(row["state"], 0) + 1
    return [{"state": state, "n": n} for state, n in counts.items()]


@model("unacknowledged")
def unacknowledged(t: Transaction, tables: Tables, p: P) -> list[P]:
    rows = [
        {"id": id_} for id_, row in tables.unacknowledged.items()
        if row["ended_at"] < p["before"] and id_ > p["after"]
    ]  # fmt: skip
    return sorted(rows, key=lambda row: row["id"])[: p["limit"]]


@model("unacknowledged_children")
def unacknowledged_children(t: Transaction, tables: Tables, p: P) -> list[P]:
    rows = [
        {"id": id_} for id_, row in tables.unacknowledged.items()
        if row["ended_at"] < p["before"] and '"tierflow.parent"' in tables.entity.get(id_, {"labels": ""})["labels"]
    ]  # fmt: skip
    return sorted(rows, key=lambda row: row["id"])[: p["limit"]]


@model("request_winner")
def request_winner(t: Transaction, tables: Tables, p: P) -> list[P]:
    row = tables.request.get((p["tenant"], p["request_id"]))
    return [] if row is None else [row]


@model("forget_requests", writes=True)
def forget_requests(t: Transaction, tables: Tables, p: P) -> list[P]:
    gone = [key for key, row in tables.request.items() if row["created_at"] < p["before"]][: p["limit"]]
    for key in gone:
        t.write(tables.request.pop, key, None)
    return [{"n": len(gone)}]


@model("partitions")
def partitions(t: Transaction, tables: Tables, p: P) -> list[P]:
    return []


# --- large values ---


@model("blob_chunks")
def blob_chunks(t: Transaction, tables: Tables, p: P) -> list[P]:
    return [{"data": data} for _, data in sorted(tables.blob.get(p["sha256"], {}).items())]


@model("touch_blob")
def touch_blob(t: Transaction, tables: Tables, p: P) -> list[P]:
    return [{"exists": p["sha256"] in tables.blob}]


@model("put_blob", writes=True)
def put_blob(t: Transaction, tables: Tables, p: P) -> list[P]:
    if held(t, tables, p["me"]):
        for name, chunk, data in zip(p["b_sha256"], p["b_chunk"], p["b_data"], strict=True):
            t.write(tables.put_chunk, name, chunk, data)
    return []


# --- flows ---


@model("put_flow", writes=True)
def put_flow(t: Transaction, tables: Tables, p: P) -> list[P]:
    t.exclusive(("flow", p["hash"]))
    if p["hash"] in tables.flow:
        return []
    t.write(tables.flow.__setitem__, p["hash"], dict(p))
    return [{"hash": p["hash"]}]


@model("find_results")
def find_results(t: Transaction, tables: Tables, p: P) -> list[P]:
    rows = (tables.step_cache.get((p["tenant"], key)) for key in p["keys"])
    return [row for row in rows if row is not None and row["expires_at"] > p["now"]]


@model("put_result", writes=True)
def put_result(t: Transaction, tables: Tables, p: P) -> list[P]:
    key = (p["tenant"], p["key_hash"])
    t.exclusive(("step_cache", key))
    t.write(tables.step_cache.__setitem__, key, {**p, "stored_at": p["now"]})
    return [{"key_hash": p["key_hash"]}]


@model("drop_expired_results", writes=True)
def drop_expired_results(t: Transaction, tables: Tables, p: P) -> list[P]:
    old = [(row["expires_at"], key) for key, row in tables.step_cache.items() if row["expires_at"] <= p["now"]]
    for _, key in sorted(old)[: p["limit"]]:
        t.exclusive(("step_cache", key))
        t.write(tables.step_cache.pop, key, None)
    return [{"key_hash": key[1]} for _, key in sorted(old)[: p["limit"]]]


@model("put_version", writes=True)
def put_version(t: Transaction, tables: Tables, p: P) -> list[P]:
    key = (p["tenant"], p["name"], p["version"])
    t.exclusive(("version", key))
    if key in tables.version:
        return []
    t.write(tables.version.__setitem__, key, {"hash": p["hash"], "created_at": p["created_at"]})
    return [{"hash": p["hash"]}]


@model("get_flow")
def get_flow(t: Transaction, tables: Tables, p: P) -> list[P]:
    row = tables.flow.get(p["hash"])
    return [] if row is None else [row]


@model("get_version")
def get_version(t: Transaction, tables: Tables, p: P) -> list[P]:
    row = tables.version.get((p["tenant"], p["name"], p["version"]))
    return [] if row is None else [row]


@model("get_newest")
def get_newest(t: Transaction, tables: Tables, p: P) -> list[P]:
    found = [
        (row["created_at"], key[2], row) for key, row in tables.version.items() if key[:2] == (p["tenant"], p["name"])
    ]
    return [max(found, key=lambda item: item[:2])[2]] if found else []
