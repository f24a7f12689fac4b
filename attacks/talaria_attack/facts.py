"""What the experiment claims, each with the lines that speak against it. A fact nobody measured does not hold."""
from .laboratory import CONTROL


def of(lines):
    scored = [x for x in lines if x["applies"] and x["scheme"] != CONTROL]
    return [
        _best_of("unprotected rows of layer 0: an attack that does not adapt recovers 97.5 % of the tokens or more, in every text",
                 [x for x in scored if x["scheme"] == "none" and x["layer"] == 0 and not x["adaptive"]], 0.975),
        _none_differs("the published mask under attacks that do not adapt: no different from uniform rows",
                      [x for x in scored if x["scheme"].startswith("published") and not x["adaptive"]]),
        _best_of("the published mask under an attack that adapts: 99 % of the tokens or more, for every m, in every text, at layer 0",
                 [x for x in scored if x["scheme"].startswith("published") and x["layer"] == 0 and x["adaptive"]], 0.99),
        _best_of("deeper layers, of the tokens that the model proposes: vocabulary matching finds 97.5 % or more unprotected, in every text",
                 [x for x in scored if x["scheme"] == "none" and x.get("proposed")], 0.975),
        _best_of("deeper layers, of the tokens that the model proposes: null-space matching finds 99 % or more under the published mask, for every m, in every text",
                 [x for x in scored if x["scheme"].startswith("published") and x.get("proposed") and x["adaptive"]], 0.99),
        _none_differs("the lattice mask: no attack differs from uniform rows, in any text, at any layer", [x for x in scored if x["scheme"] == "lattice"]),
        _best_of("the laboratory sees a lattice mask that is used again: 97.5 % of the tokens or more at layer 0",
                 [x for x in scored if x["scheme"] == "lattice-reused" and x["layer"] == 0 and x["text"] != "decoded answers"], 0.975),
        _best_of("the laboratory sees a lattice mask without its error: 97.5 % of the tokens or more, in every text, at layer 0",
                 [x for x in scored if x["scheme"] == "lattice-no-error" and x["layer"] == 0], 0.975),
    ]


def _best_of(fact, lines, least):
    best = {}
    for x in lines:
        key = x["scheme"], x["text"], x["layer"]
        if key not in best or _share(x) > _share(best[key]):
            best[key] = x
    return _fact(fact, best.values(), [x for x in best.values() if _share(x) < least])


def _none_differs(fact, lines):
    return _fact(fact, lines, [x for x in lines if x.get("differs_from_control", True)])


def _fact(fact, lines, against):
    against = [f"{x['scheme']}, {x['text']}, layer {x['layer']}, {x['attack']}: {x['hits']} of {x['rows']}" for x in against]
    if not lines:
        against = ["not measured"]
    return {"fact": fact, "holds": not against, "lines": len(lines), "against": against}


def _share(line):
    return line["hits"] / line.get("proposed", line["rows"])
