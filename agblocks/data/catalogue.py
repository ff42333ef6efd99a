"""The public data sets we know: addresses, checksums, licences, citations, and how each one misleads."""

from __future__ import annotations

from .fetch import PublicData, PublicFile


def _files(repository: str, commit: str, folder: str, sha256: dict[str, str]) -> tuple[PublicFile, ...]:
    """Files of one folder, name and checksum."""
    return tuple(PublicFile(n, s, repository, commit, f"{folder}/{n}") for n, s in sha256.items())


_DREAM = ("de-Boer-Lab/random-promoter-dream-challenge-2022", "f7b2e197f673319aaae3ef460b7f9980f74304af")
_SQUID = ("evanseitz/squid-manuscript", "e3cbd567448a0db8cef0877702594d7d8c20484b")
_CAGI = "examples/examples_CAGI5/a_model_assets"
_GENOMEPY = ("vanheeringen-lab/genomepy", "1be338be25ddb9c6db4d13d5ca202677bec9b159")
_COVERAGE = ("js2264/tidyCoverage", "a1b8d2dab126e74b66b0133f62c9674a48b5f17d")

LENTIMPRA = PublicData(
    name="human_lentimpra_3k",
    title="Human lentiMPRA, a sample: 2,940 sequences of 230 bp (15 + 200 + 15), log2 RNA/DNA",
    files=_files(
        *_DREAM,
        "benchmarks/human/data",
        {
            "sample_train.txt": "f70b10aba904dfaccf4b1c6e00f7aa818c4ccac078ab93cb6fcd928975840887",
            "sample_valid.txt": "37335175d7132d0556f1e5643e55bd991f0a48bebff360e1335f870319c2bac7",
            "sample_test.txt": "f52f30144dd13de49635ab7b902a5fd21b04b94d35d06b9691a1314ea470d233",
        },
    ),
    licence="MIT (the repository; Copyright 2024 de Boer lab)",
    citation="Agarwal et al., Nature 2025 (bioRxiv 2023.03.05.531189); sample files of Rafi et al., "
    "Nature Biotechnology 2024",
    cautions="The three files share 60 rows, and 74 elements stand in both orientations: pool, drop repeats, "
    "split by fold. The cell line is not stated.",
)

STARRSEQ = PublicData(
    name="drosophila_starrseq_3k",
    title="Drosophila S2 UMI-STARR-seq, a sample: 2,969 windows of 249 bp on chrX, two log2 enrichments",
    files=_files(
        *_DREAM,
        "benchmarks/drosophila/data",
        {
            "sample_train.txt": "e819d1424f4f59434d7888724b2f787ca791af9ba9462818d16e03cf1a7463df",
            "sample_val.txt": "e35e5b92b5a1b83550b10c304cbf56c2cc00934b347c96bd2b8641d106587320",
            "sample_test.txt": "b610f47c3e1f108258773ed77dd6234757da1c7d8a652660739da76454d2395c",
        },
    ),
    licence="MIT (the repository; Copyright 2024 de Boer lab)",
    citation="de Almeida et al., Nature Genetics 2022 (s41588-022-01048-5)",
    cautions="Windows overlap, loci stand in both orientations: split by genomic block, not by the files.",
)

YEAST_PROMOTERS = PublicData(
    name="yeast_random_promoters_6k",
    title="Yeast random promoters, a sample: 6,370 sequences (80 random bp in flanks), expression 0 to 17",
    files=_files(
        *_DREAM,
        "data",
        {
            "demo_train.txt": "277090c096efb1592d1b017fffef6d83d96817ae4430109ddc5ba45b66dd8ede",
        },
    ),
    licence="MIT (the repository; Copyright 2024 de Boer lab)",
    citation="Rafi et al., Nature Biotechnology 2024; system of de Boer et al. 2020 and Vaishnav et al. 2022",
    cautions="Strand-specific: don't reverse-complement. Lengths vary. The repository's demo_val.txt holds "
    "the same rows and is no validation set.",
)

CAGI5 = PublicData(
    name="cagi5_satmut_squid",
    title="CAGI5 saturation mutagenesis: 15 loci, 18,330 single-base variants, 2,048-bp hg19 windows",
    files=(
        PublicFile(
            "CAGI5_onehots_centered_2048.h5",
            "0fc2e897761b8d1181b4f82409e8dd391a9b97b481ddcf3df9c32b5c3e292f15",
            *_SQUID,
            f"{_CAGI}/CAGI5_onehots_centered_2048.h5",
        ),
        PublicFile(
            "centered_combined_cagi.csv",
            "30c2c9e472c853eb9ab922e828a2f5dea79edacc8be77c29f1bb3075f0b14053",
            *_SQUID,
            f"{_CAGI}/CAGI5_info/centered_combined_cagi.csv",
        ),
        *_files(
            *_SQUID,
            f"{_CAGI}/CAGI5_info/saturation_scores",
            {
                f"combined_{locus}.tsv": sha256
                for locus, sha256 in {
                    "LDLR": "0fc1e09b2a7c9a49efbfae6091c7df8f874209ea26c0a93f568094f995845df8",
                    "ZFAND3": "7cf617c5ec051fb5eb06072571cb8f6f9009f0797e6d9c31f411ba466545af4a",
                    "F9": "b75bbbcdd8105073428df20e6743b576baf91d840a7ee8c79d1f4a14a721d986",
                    "SORT1": "32809d873492c62e075f958104d4368cfbe637954cd63cf353c8de1396485ffc",
                    "TERT-HEK293T": "7b91740b4e736e666987ea7fc52d2387f3703e3e4e2e5d96fb5320a94d6de32a",
                    "MSMB": "6171d790d7803344bbbf1d519dde212ab296001a94ab399f6e2c3161569a2d8a",
                    "IRF6": "c87f6bc96881afd330589fb62ce7fc13f2dfa1f0c1ac803b07246320024ead59",
                    "TERT-GBM": "171d546557c012b60adae6942604bd6a12e6305e4bacf81cda94bba7cfccfe17",
                    "IRF4": "c31188603af478d59da0a0b8b7bc7ee434281f19dbf8d8a7966811b0f7965d04",
                    "PKLR": "59be13743e622854c8fde0253e5ce2f647be4d11437b9be84d5e60a402e11f2c",
                    "HBB": "e7cbbcc6d7143d4df75d1f524a98a0877701796c88af6e4b62be6b777920d375",
                    "HBG1": "4f197ae3eba48eb07287a14d05fef62c31068a4c86dbf52d7ff188e79619c74e",
                    "HNF4A": "c78856128a969957639dd029cfe732fb7641f96787e2b1836e85578c69ed45d3",
                    "MYCrs6983267": "0377b9a1c4a9741fc8f83cb72fbc8c1a09a13ee1f26e19e5e7ae2f53e035c643",
                    "GP1BB": "e84216c752d8ab2058bdd2c1091a49f800b99ddbbaccd6c08e8d048ced4aa954",
                }.items()
            },
        ),
    ),
    licence="MIT (the repository); the CAGI data have terms of their own, which it does not state",
    citation="Kircher et al., Nature Communications 2019; packaged by Seitz et al., Nature Machine "
    "Intelligence 2024 (SQUID)",
    cautions="For testing without training. Three rows of HBG1 name a reference base that the window does "
    "not have; they are reported.",
)

YEAST_TRACKS = PublicData(
    name="yeast_genome_tracks",
    title="Yeast chromosome IV (sacCer3) and five bigWig tracks in 75-bp bins",
    files=(
        PublicFile(
            "sacCer3_chrIV.fa",
            "b75408e0b8eefcd95df05f2be83f3d60a61b1a658f0f89b8da2c98b557b199b5",
            *_GENOMEPY,
            "tests/data/sacCer3/sacCer3.fa",
        ),
        *_files(  # the path of the two RNA tracks is not in the source notes: taken to be the others'
            *_COVERAGE,
            "inst/extdata",
            {
                "MNase.bw": "94c85a4326ba7a66f6721884e7a4b9e05362b1b9b1b2263c03694001e73b5f6f",
                "PolII.bw": "82579868cea223e9cb0fdef289eff17f69877a91be359128f1d5ff2fd45c4819",
                "RNA.fwd.bw": "20f7188bc499ef2221ccb4906099c43bd963715e32481af2f2af9f41d8e7d0b5",
                "RNA.rev.bw": "74b2455ae10d6315cd19de05b16809f76a5db6b6a364dd9360503c3cbb577ebc",
                "Scc1.bw": "8f1a58c46628295b84d0d3d0f018c8e8c58936ab247dc34539fc5470e70c014b",
                "TSSs.bed": "5a06dd97892719b0851232bf18d0f0fc169153b68c5b012e8865fe6cffa1a1ee",
            },
        ),
    ),
    licence="MIT (genomepy); MIT + file LICENSE (tidyCoverage)",
    citation="genomepy (Fröhlich, van Heeringen and others 2023); tidyCoverage (Serizay)",
    cautions="The FASTA calls the chromosome chrIV, the tracks call it IV. Split along the chromosome.",
)

PUBLIC = {d.name: d for d in (LENTIMPRA, STARRSEQ, YEAST_PROMOTERS, CAGI5, YEAST_TRACKS)}
"""Every known data set by name."""
