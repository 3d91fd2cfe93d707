"""Which pages only list what their title may mean."""

from __future__ import annotations

import re

# Names of the template in lower case, of the larger wikis; MediaWiki's switch serves all others.
_TEMPLATES = frozenset(
    [
        *("disambiguation", "disambig", "dab", "disamb", "disam", "geodis", "hndis", "surname"),
        *(
            "disambiguation page",
            "airport disambiguation",
            "letter-number combination disambiguation",
        ),
        *("human name disambiguation", "place name disambiguation", "school disambiguation"),
        *("mathematical disambiguation", "numberdis", "roaddis", "callsigndis", "letterdis"),
        *("begriffsklärung", "begriffsklärungshinweis bks", "homonymie", "paronymie", "patronyme"),
        *("desambiguación", "desambig", "desambiguação", "disambigua", "doorverwijspagina", "dp"),
        *("förgrening", "flertydig", "peker", "pekerside", "täsmennyssivu", "egyért", "egyert"),
        *("ujednoznacznienie", "rozcestník", "rozlišovacia stránka", "razločitev", "razvrstavanje"),
        *("dezambiguizare", "anlam ayrımı", "anlam ayrım", "neodnoznačnost", "неоднозначность"),
        *("многозначность", "многозначные термины", "багатозначність", "пояснение", "многозначна"),
        *(
            "вишезначна одредница",
            "шматзначнасць",
            "αποσαφήνιση",
            "פירושונים",
            "توضيح",
            "ابهام‌زدایی",
        ),
        *("बहुविकल्पी", "দ্ব্যর্থতা নিরসন", "แก้กำกวม", "trang định hướng", "định hướng", "disambig-vn"),
        *(
            "消歧义",
            "消歧義",
            "消歧义页",
            "消歧義頁",
            "aimai",
            "曖昧さ回避",
            "人名の曖昧さ回避",
            "동음이의",
        ),
        *("apartigilo", "disambiguasi", "nyahkekaburan", "desambiguació", "argipen", "homonimia"),
    ]
) - {"begriffsklärungshinweis bks", "surname"}
_SWITCH = "__DISAMBIG__"
_TITLE = re.compile(
    r"\((?:disambiguation|begriffsklärung|homonymie|desambiguación|desambiguação|disambigua|"
    r"doorverwijspagina|ujednoznacznienie|значения|значення|пояснение|định hướng|消歧义|消歧義|"
    r"曖昧さ回避|동음이의|توضيح|anlam ayrımı|olika betydelser|täsmennyssivu|rozcestník)\)\s*\Z",
    re.IGNORECASE,
)
# The sentence that opens the list, at the end of its line.
_MAY_MEAN = re.compile(
    r"(?:\b(?:may|can|could|might|commonly|usually|most often)\b[^.!?]{0,60}"
    r"\b(?:refers? to|stand for|mean)(?: (?:one of )?(?:the following|several\b[^:]{0,40}))?"
    r"|\brefers? to(?: (?:one of )?the following)?:"
    r"|\bbezeichnet|\bsteht für|\bist der (?:familien)?name|\bpeut (?:désigner|faire référence à)"
    r"|\bpuede (?:referirse|hacer referencia) a|\bpode (?:referir-se|se referir) a"
    r"|\bpuò riferirsi a"
    r"|\bkan (?:verwijzen naar|betekenen|syfta på|avse)|\bmoże (?:oznaczać|odnosić się do)"
    r"|\bможет (?:означать|относиться к)|\bможе да (?:се отнася|означава)"
    r"|\bcó thể (?:là|chỉ|đề cập)"
    r"|可以指|可能指|可指|は、?以下|قد (?:تشير|يشير) إلى)\s*[^:：\w]{0,3}[:：]?\s*\Z",
    re.IGNORECASE,
)


def is_marked(title: str, markup: str, template_names: set[str]) -> bool:
    """Whether a page says that it only disambiguates, by its title, a switch or a template.

    Args:
      title: Of the page.
      markup: Its text.
      template_names: Of all templates on it, in lower case.
    """
    return bool(_TITLE.search(title) or _SWITCH in markup or template_names & _TEMPLATES)


def reads_like_one(title: str, text: str) -> bool:
    """Whether text without markup is a title and "may refer to", with nothing or a list behind it.

    An article that says so of a word in its first sentence and then goes on is none.
    """
    if _TITLE.search(title):
        return True
    lines = [line for line in text.split("\n") if line.strip()]
    if lines and lines[0].strip() == title.strip():
        lines = lines[1:]
    if not lines or len(lines[0]) > 300 or not _MAY_MEAN.search(lines[0]):
        return False
    return len(lines) == 1 or lines[0].rstrip().endswith((":", "：")) and _is_list(lines[1:])


def _is_list(lines: list[str]) -> bool:
    """Whether at most one line in four is as long as a paragraph."""
    return sum(len(line) > 250 for line in lines) * 4 <= len(lines)
