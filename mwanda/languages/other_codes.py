"""Other codes of a language: those of FLORES-200, of its macrolanguage, and of the web.

ISO 639-3 names single languages (Mandarin, `cmn`) and macrolanguages (Chinese, `zho`) that cover several of them.
FLORES+ uses the former, much text is named by the latter.
"""

from mwanda.languages.lookup import RENAMED
from mwanda.languages.table import Language


MACROLANGUAGES = {
    "aka": "fat twi",
    "ara": "acm acq acw acx adf aeb aec afb apc apd arb arq ars ary arz ayl shu",
    "aym": "ayc ayr",
    "aze": "azb azj",
    "bik": "bcl",
    "chm": "mhr mrj",
    "cre": "crj crk crl crm csw cwd nsk",
    "din": "dib dik dip diw dks",
    "est": "ekk vro",
    "fas": "pes prs",
    "ful": "ffm fub fuc fue fuf fuh fui fuq fuv",
    "grn": "gnw gug gui gun nhd",
    "hbs": "bos cnr hrv srp",
    "hmn": "hea hmd hnj mww",
    "iku": "ike ikt",
    "kau": "kby knc krt",
    "kok": "gom knn",
    "kom": "koi kpv",
    "kon": "kng kwy ldi",
    "kur": "ckb kmr sdh",
    "lah": "hno pnb skr",
    "lav": "ltg lvs",
    "man": "emk mlq mnk msc mwk",
    "mlg": "bhr bmm msh plt skg tdx tkg txy xmv xmw",
    "mon": "khk mvf",
    "msa": "bjn ind jak kxd max meo mfa min mui zlm zmi zsm",
    "nep": "dty npi",
    "nor": "nno nob",
    "oji": "ciw ojb ojc ojg ojs ojw otw",
    "ori": "ory spv",
    "orm": "gax gaz hae orc",
    "pus": "pbt pbu pst",
    "que": "qub qud quf qug quh quk qul qup qur qus quw qux quy quz qva qvc qvh qvi qvm qvn qwh qxn qxu",
    "rom": "rmc rmf rml rmn rmo rmw rmy",
    "sqi": "aae aat aln als",
    "srd": "sdc sdn src sro",
    "swa": "swc swh",
    "syr": "aii cld",
    "tmh": "taq thv thz ttq",
    "uzb": "uzn uzs",
    "yid": "ydd yih",
    "zha": "zyb zyg zyj zyn zzj",
    "zho": "cdo cjy cmn cpx czh czo gan hak hsn lzh mnp nan wuu yue",
}
"""Single languages of each macrolanguage (ISO 639-3), as far as text in them is common."""


def macrolanguage(iso_639_3: str) -> str | None:
    """Return the code of the macrolanguage that covers a language, if one does."""
    return next((macro for macro, covered in MACROLANGUAGES.items() if iso_639_3 in covered.split()), None)


def other_codes(language: Language) -> list[str]:
    """Return the codes with a script that stand for this language and no other one.

    They are what FLORES-200 called it, and the code of the macrolanguage that it stands for.
    """
    former = [old for old, new in RENAMED.items() if new == language.code]
    macro = macrolanguage_by_tag(language)
    shared = [] if macro is None else [f"{macro}_{language.script}"]
    return [*former, *(code for code in shared if code not in RENAMED)]


def macrolanguage_by_tag(language: Language) -> str | None:
    """Return the macrolanguage that a language stands for: the one of the same tag of the web, without a region.

    `zh` is Chinese and Mandarin, so `zho_Hans` is Mandarin; no tag makes `ara_Arab` Moroccan Arabic.
    """
    import pycountry

    tag, *subtags = (language.bcp_47 or "").split("-")
    found = pycountry.languages.get(alpha_2=tag) if len(tag) == 2 and subtags in ([], [language.script]) else None
    return None if found is None or found.alpha_3 == language.iso_639_3 else str(found.alpha_3)
