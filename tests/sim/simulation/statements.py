"""What the statements about instances, owning and relaying do; see `models`."""

from __future__ import annotations

from typing import Any

from simulation.database import Transaction
from simulation.models import P, held, model
from simulation.tables import Tables


def _take(t: Transaction, tables: Tables, entity_id: str) -> P:
    t.exclusive(("entity", tables.schema, entity_id))
    return tables.entity[entity_id]


# --- instances ---


@model("now")
def now(t: Transaction, tables: Tables, p: P) -> list[P]:
    return [{"now": t.clock, "server_start": t.session.server.started_at}]


@model("register", writes=True)
def register(t: Transaction, tables: Tables, p: P) -> list[P]:
    me = p["id"]
    old = [id_ for id_, row in tables.fence.items() if row["name"] == p["name"] and not row["fenced"] and id_ != me]
    for id_ in old:
        t.exclusive(("fence", tables.schema, id_))
        t.write(tables.fence[id_].update, {"fenced": True, "fenced_by": me, "fenced_at": t.clock})
    t.exclusive(("fence", tables.schema, me))
    row = {
        "id": me, "name": p["name"], "address": p["address"], "started_at": t.clock, "lease_until": t.clock + p["lease"], "backend_pid": p["pid"],
    }  # fmt: skip
    t.write(tables.instance.__setitem__, me, row)
    fence = {"id": me, "name": p["name"], "fenced": False, "fenced_by": None, "fenced_at": None}
    t.write(tables.fence.__setitem__, me, fence)
    t.write(tables.watermark.__setitem__, me, {"id": me, "position": p["position"], "relayer": None})
    return [{"id": id_} for id_ in old]


@model("old_backends")
def old_backends(t: Transaction, tables: Tables, p: P) -> list[P]:
    return [{"backend_pid": tables.instance[id_]["backend_pid"]} for id_ in p["ids"] if id_ in tables.instance]


@model("heartbeat", writes=True)
def heartbeat(t: Transaction, tables: Tables, p: P) -> list[P]:
    me = p["id"]
    row, fence = tables.instance.get(me), tables.fence.get(me)
    if row is None or fence is None or fence["fenced"]:
        return []
    t.exclusive(("instance", tables.schema, me))
    t.write(row.update, {"lease_until": t.clock + p["lease"], "backend_pid": p["pid"], "address": p["address"]})
    return [{"now": t.clock, "server_start": t.session.server.started_at}]


@model("expired")
def expired(t: Transaction, tables: Tables, p: P) -> list[P]:
    return [
        {"id": id_, "name": row["name"], "backend_pid": row["backend_pid"]}
        for id_, row in tables.instance.items()
        if id_ != p["me"] and row["lease_until"] < t.clock and id_ in tables.fence and not tables.fence[id_]["fenced"]
    ]


@model("fence", writes=True)
def fence(t: Transaction, tables: Tables, p: P) -> list[P]:
    row, instance = tables.fence.get(p["id"]), tables.instance.get(p["id"])
    if row is None or instance is None or row["fenced"] or instance["lease_until"] >= t.clock:
        return []
    t.exclusive(("fence", tables.schema, p["id"]))
    t.write(row.update, {"fenced": True, "fenced_by": p["me"], "fenced_at": t.clock})
    return [{"id": p["id"]}]


@model("terminate")
def terminate(t: Transaction, tables: Tables, p: P) -> list[P]:
    return [{"pg_terminate_backend": True}] if t.session.server.terminate(p["pid"]) else []


@model("this_session")
def this_session(t: Transaction, tables: Tables, p: P) -> list[P]:
    return [{"pid": t.session.pid, "backend_start": t.session.started}]


@model("end_session")
def end_session(t: Transaction, tables: Tables, p: P) -> list[P]:
    if not t.session.server.terminate(p["pid"]):
        return []
    gone = p["pid"] not in t.session.server.sessions
    t.wait = 0.0 if gone else 0.1
    return [{"pg_terminate_backend": gone}]


@model("leave", writes=True)
def leave(t: Transaction, tables: Tables, p: P) -> list[P]:
    me = p["id"]
    if me in tables.instance:
        t.write(tables.instance.pop, me, None)
    if me in tables.fence:
        t.exclusive(("fence", tables.schema, me))
        t.write(tables.fence[me].update, {"fenced": True, "fenced_by": me, "fenced_at": t.clock})
    return []


@model("fenced_owners")
def fenced_owners(t: Transaction, tables: Tables, p: P) -> list[P]:
    owners = {row["owner"] for row in tables.entity.values()}
    return [{"id": id_} for id_, row in tables.fence.items() if row["fenced"] and id_ in owners]


@model("fenced_of")
def fenced_of(t: Transaction, tables: Tables, p: P) -> list[P]:
    return [{"id": id_} for id_ in p["ids"] if id_ in tables.fence and tables.fence[id_]["fenced"]]


@model("living")
def living(t: Transaction, tables: Tables, p: P) -> list[P]:
    alive = [id_ for id_ in tables.instance if id_ in tables.fence and not tables.fence[id_]["fenced"]]
    return [{"count": len(alive)}]


@model("forget_instances", writes=True)
def forget_instances(t: Transaction, tables: Tables, p: P) -> list[P]:
    owners = {row["owner"] for row in tables.entity.values()}
    for id_, row in tables.fence.items():
        old = row["fenced"] and row["fenced_at"] is not None and row["fenced_at"] < p["before"]
        if old and id_ not in owners and id_ not in tables.watermark:
            t.write(tables.instance.pop, id_, None)
            t.write(tables.fence.pop, id_, None)
    return []


# --- owning ---


def _own(t: Transaction, tables: Tables, me: str, row: P, **more: Any) -> P:
    t.exclusive(("entity", tables.schema, row["id"]))
    change = {"owner": me, **more}
    t.write(tables.change_entity, row["id"], change)
    return {"id": row["id"], "adoptions": more.get("adoptions", row["adoptions"])}


@model("adopt", writes=True)
def adopt(t: Transaction, tables: Tables, p: P) -> list[P]:
    if not held(t, tables, p["me"]):
        return []
    chosen = [
        row for row in tables.entity.values()
        if row["owner"] == p["from"] and not t.locked(("entity", tables.schema, row["id"]))
    ]  # fmt: skip
    return [_own(t, tables, p["me"], row, adoptions=min(row["adoptions"] + 1, 1000)) for row in chosen[: p["limit"]]]


@model("due", writes=True)
def due(t: Transaction, tables: Tables, p: P) -> list[P]:
    if not held(t, tables, p["me"]):
        return []
    chosen = [
        row for row in tables.unowned.values()
        if row["wake_at"] is not None and row["wake_at"] <= p["now"] and not t.locked(("entity", tables.schema, row["id"]))
    ]  # fmt: skip
    chosen.sort(key=lambda row: row["wake_at"])
    return [_own(t, tables, p["me"], row) for row in chosen[: p["limit"]]]


@model("claim", writes=True)
def claim(t: Transaction, tables: Tables, p: P) -> list[P]:
    row = tables.entity.get(p["id"])
    if not held(t, tables, p["me"]) or row is None:
        return []
    _take(t, tables, p["id"])
    if row["owner"] != p["from"]:
        return []
    adoptions = row["adoptions"] if row["owner"] is None else min(row["adoptions"] + 1, 1000)
    return [_own(t, tables, p["me"], row, adoptions=adoptions)]


@model("owned")
def owned(t: Transaction, tables: Tables, p: P) -> list[P]:
    return [{"id": id_, "adoptions": row["adoptions"]} for id_, row in tables.entity.items() if row["owner"] == p["me"]]


@model("put_off", writes=True)
def put_off(t: Transaction, tables: Tables, p: P) -> list[P]:
    if held(t, tables, p["me"]):
        for id_, moment in zip(p["ids"], p["moments"], strict=True):
            row = tables.entity.get(id_)
            if row is not None and row["owner"] == p["me"]:
                t.exclusive(("entity", tables.schema, id_))
                t.write(tables.change_entity, id_, {"owner": None, "wake_at": moment})
    return []


@model("release", writes=True)
def release(t: Transaction, tables: Tables, p: P) -> list[P]:
    if not held(t, tables, p["me"]):
        return []
    for id_ in p["ids"]:
        row = tables.entity.get(id_)
        if row is not None and row["owner"] == p["me"]:
            t.exclusive(("entity", tables.schema, id_))
            t.write(tables.change_entity, id_, {"owner": None, "wake_at": p["now"]})
    return []


@model("quarantine", writes=True)
def quarantine(t: Transaction, tables: Tables, p: P) -> list[P]:
    row = tables.entity.get(p["id"])
    if held(t, tables, p["me"]) and row is not None and row["owner"] == p["me"]:
        t.exclusive(("entity", tables.schema, p["id"]))
        change = {"owner": None, "wake_at": None, "reason": "QUARANTINED", "state": p["state"], "adoptions": 1000}
        t.write(tables.change_entity, p["id"], change)
    return []


@model("owner")
def owner(t: Transaction, tables: Tables, p: P) -> list[P]:
    row = tables.entity.get(p["id"])
    if row is None:
        return []
    instance, fence_row = tables.instance.get(row["owner"]), tables.fence.get(row["owner"])
    return [
        {
            "owner": row["owner"], "ended_at": row["ended_at"], "adoptions": row["adoptions"], "address": instance["address"] if instance else None,
            "fenced": fence_row["fenced"] if fence_row else True,
        }
    ]  # fmt: skip


# --- relaying ---


@model("save_watermark", writes=True)
def save_watermark(t: Transaction, tables: Tables, p: P) -> list[P]:
    row = tables.watermark.get(p["id"])
    if row is not None and row["position"] < p["position"]:
        t.exclusive(("watermark", tables.schema, p["id"]))
        t.write(row.update, {"position": p["position"]})
    return []


@model("orphaned_watermarks", writes=True)
def orphaned_watermarks(t: Transaction, tables: Tables, p: P) -> list[P]:
    def gone(id_: str | None) -> bool:
        return id_ not in tables.fence or tables.fence[id_]["fenced"]

    found = []
    for id_, row in tables.watermark.items():
        relayer = row["relayer"]
        if gone(id_) and (relayer is None or relayer == p["me"] or gone(relayer)):
            t.exclusive(("watermark", tables.schema, id_))
            t.write(row.update, {"relayer": p["me"]})
            found.append({"id": id_, "position": row["position"]})
    return found


@model("drop_watermark", writes=True)
def drop_watermark(t: Transaction, tables: Tables, p: P) -> list[P]:
    row = tables.watermark.get(p["id"])
    if row is not None and all(line["position"] <= row["position"] for line in tables.by_instance.get(p["id"], ())):
        t.exclusive(("watermark", tables.schema, p["id"]))
        t.write(tables.watermark.pop, p["id"], None)
    return []


@model("waive_watermark", writes=True)
def waive_watermark(t: Transaction, tables: Tables, p: P) -> list[P]:
    if p["id"] in tables.watermark:
        t.exclusive(("watermark", tables.schema, p["id"]))
        t.write(tables.watermark.pop, p["id"], None)
    return []


@model("rewind_watermark", writes=True)
def rewind_watermark(t: Transaction, tables: Tables, p: P) -> list[P]:
    row = tables.watermark.get(p["id"])
    if row is not None:
        t.exclusive(("watermark", tables.schema, p["id"]))
        t.write(row.update, {"position": 0})
    return []


@model("try_lock")
def try_lock(t: Transaction, tables: Tables, p: P) -> list[P]:
    holders = t.session.server.advisory
    holder = holders.get((tables.schema, p["key"]))
    if holder is not None and holder.alive and holder is not t.session:
        return [{"locked": False}]
    holders[tables.schema, p["key"]] = t.session
    return [{"locked": True}]


@model("stream_filled")
def stream_filled(t: Transaction, tables: Tables, p: P) -> list[P]:
    row = tables.event_stream.get(p["created"])
    return [row] if row is not None else []


@model("note_stream_filled", writes=True)
def note_stream_filled(t: Transaction, tables: Tables, p: P) -> list[P]:
    t.exclusive(("event_stream", tables.schema, p["created"]))
    t.write(tables.event_stream.setdefault, p["created"], {"filled_at": p["now"]})
    return []
