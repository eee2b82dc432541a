"""Functions of jq that are written in jq."""

from __future__ import annotations

from typing import Final

from tierflow_flow.jq.parser import parse_definitions
from tierflow_flow.jq.syntax import Function

_TEXT: Final = r"""
def values: select(. != null);
def nulls: select(. == null);
def booleans: select(type == "boolean");
def numbers: select(type == "number");
def strings: select(type == "string");
def arrays: select(type == "array");
def objects: select(type == "object");
def iterables: select(type == "array" or type == "object");
def scalars: select(type != "array" and type != "object");
def map_values(f): .[] |= f;
def recurse_down: recurse;
def to_entries: [keys_unsorted[] as $k | {key: $k, value: .[$k]}];
def from_entries: reduce .[] as $x ({}; . + { ($x | if .key == null then .k // .name // .Name // .K // .Key else .key end | if type == "string" then . else tojson end): ($x | if has("value") then .value elif has("v") then .v else .Value end) });
def with_entries(f): to_entries | map(f) | from_entries;
def paths: path(..) | select(length > 0);
def paths(f): path(.. | select(f)) | select(length > 0);
def leaf_paths: paths(scalars);
def todate: strftime("%Y-%m-%dT%H:%M:%SZ");
def fromdateiso8601: strptime("%Y-%m-%dT%H:%M:%SZ") | mktime;
def todateiso8601: strftime("%Y-%m-%dT%H:%M:%SZ");
def fromdate: fromdateiso8601;
def date: todate;
def finites: select(isinfinite or isnan | not);
def normals: select(isnormal);
def in(xs): . as $x | xs | has($x);
def inside(xs): . as $x | xs | contains($x);
def combinations: if length == 0 then [] else .[0][] as $x | (.[1:] | combinations) as $w | [$x] + $w end;
def combinations(n): . as $dot | [range(n)] | map($dot) | combinations;
def walk(f): def w: if type == "object" then map_values(w) elif type == "array" then map(w) else . end | f; w;
def ascii: [.] | implode;
def tostream: path(def r: (.[]?|r), .; r) as $p | getpath($p) | reduce path(.[]?) as $q ([$p, .]; [$p+$q]);
def IN(s): any(s == .; .);
def IN(src; s): any(src == s; .);
def INDEX(stream; idx_expr): reduce stream as $row ({}; .[$row | idx_expr | tostring] |= $row);
def INDEX(idx_expr): INDEX(.[]; idx_expr);
def capture(re): capture(re; null);
def capture(re; flags): match(re; flags) | [.captures | .[] | select(.name != null) | { key: .name, value: .string }] | from_entries;
def scan(re): scan(re; null);
def scan(re; flags): match(re; "g" + flags) | if (.captures | length) > 0 then [.captures | .[] | .string] else .string end;
def splits($re): splits($re; null);
def splits($re; flags): split($re; flags) | .[];
def match(re): match(re; null);
def match(re; flags): _match(re; flags; false) | .[];
def test(re): test(re; null);
def test(re; flags): _match(re; flags; true);
def sub(re; str): sub(re; str; "");
def gsub(re; str): sub(re; str; "g");
def gsub(re; str; $flags): sub(re; str; $flags + "g");
def sub(re; str; $flags): . as $in | (reduce (match(re; $flags) | . as $edit | ($edit.captures | map(select(.name != null) | { key: .name, value: .string }) | from_entries)) as $c ([]; . + [$c])) as $captures | [match(re; $flags)] as $edits | def emit($i; $at): if $i == ($edits | length) then $in[$at:] else ($edits[$i]) as $e | ($captures[$i] | str) as $new | emit($i + 1; $e.offset + $e.length) | $in[$at:$e.offset] + $new + . end; emit(0; 0);
def pick(pathexps): . as $top | reduce path(pathexps) as $p (null; setpath($p; $top | getpath($p)));
def debug(msgs): .;
def have_literal_numbers: true;
def have_decnum: false;
def del(f): delpaths([path(f)]);
def toarray: if type == "array" then . else [.] end;
def add(f): reduce f as $x (null; . + $x);
def isvalid(f): try (f | true) catch false;
def halt_error: error("halt_error is not available");
def abs: if type == "number" and . < 0 then -. elif . == null then error("null (null) has no absolute value") else . end;
"""

PRELUDE: Final[list[Function]] = parse_definitions(_TEXT)
