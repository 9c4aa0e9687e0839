"""The tables of a run's compared pairs: similarity.csv, paper.csv and verdicts.csv."""

from dataclasses import dataclass
from pathlib import Path

from leamfast.analysis.bootstrap import Resampling
from leamfast.analysis.paper_ranges import PaperRow, paper_rows
from leamfast.analysis.similarity import SimilarityRow, similarity_rows
from leamfast.analysis.tables import write_rows
from leamfast.analysis.verdicts import Verdict, verdicts
from leamfast.errors import RequestError
from leamfast.store.part import PartError
from leamfast.store.results import Results, open_results

__all__ = ["SimilarityTables", "similarity_of", "similarity_tables", "write_similarity"]


@dataclass(frozen=True)
class SimilarityTables:
    """What was found of pairs.

    Attributes:
        similarity: every kind, threshold, prior and measure.
        paper: BC beside the ranges of the paper.
        verdicts: one sentence a model and map.
    """

    similarity: list[SimilarityRow]
    paper: list[PaperRow]
    verdicts: list[Verdict]

    def count(self, name: str) -> int:
        """Rows of a table."""
        return len(getattr(self, name))


def similarity_tables(root: Path) -> SimilarityTables:
    """Compute the tables of a result folder's pairs.

    Raises:
        RequestError: the folder holds no run or no pairs, or pairs of which some are missing or damaged.
    """
    with open_results(root) as results:
        found = similarity_of(results)
    if found is None:
        raise RequestError(
            f"{root} holds no pairs of its maps as they are now: run `leamfast compare {root}`"
        )
    return found


def similarity_of(results: Results) -> SimilarityTables | None:
    """As `similarity_tables`, of an open run; None where its maps have not been compared."""
    if not results.has_pairs:
        return None
    identities = results.identities
    resampling = Resampling(identities)
    rows: list[SimilarityRow] = []
    try:
        for model in results.models:
            for name in (*results.taps(model), "fused"):
                rows += similarity_rows(results.pairs(model, name), identities, resampling)
    except PartError as exc:
        raise RequestError(f"{exc}: run `leamfast compare {results.root}`") from exc
    return SimilarityTables(rows, list(paper_rows(rows)), verdicts(rows))


def write_similarity(root: Path, found: SimilarityTables) -> dict[str, Path]:
    """Write the tables; name -> file."""
    return {
        "similarity": write_rows(root, "similarity", SimilarityRow, found.similarity),
        "paper": write_rows(root, "paper", PaperRow, found.paper),
        "verdicts": write_rows(root, "verdicts", Verdict, found.verdicts),
    }
