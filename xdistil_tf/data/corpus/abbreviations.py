"""Words that a full stop follows without ending a sentence; what `sentences.py` reads.

All in lower case and without their last stop. Lists are short on purpose: initials, acronyms,
numbers and a lower-case word after the stop are told by their form, in any language.
"""

from __future__ import annotations

# Before a name: never an end.
TITLES = frozenset(
    "adm brig capt cardl cdr cmdr col comdr cpl dr drs ens fr gen gov hon insp lt maj messrs mlle "
    "mme mmes mr mrs ms msgr mt pres prof profs pvt rep reps rev sen sens sgt sr st ste supt sra "
    "srta dña dott dott.ssa ing lic hr hrn fam dir doc mgr judr mudr phdr phd.dr ts gs pgs ths tp "
    "проф акад им св ул пр пл обл стр гр д-р г-н г-жа инж арх ген полк".split()
)
# Before a number, or a word that a capital does not make the start of a sentence.
BEFORE_NUMBERS = frozenset(
    "abb abs anm app approx art bd bl ca cap ch chap cir circa ed eds eq eqs est fig figs ff fl "
    "fol hno kap lib ms mss n nos no nr num op par para pp pt pts p ref sec sect tab tel vol vols "
    "vv v vs § рис стр табл т тт гл ст с № jan feb febr mar apr jun jul aug sep sept oct okt nov "
    "dec dez".split()
)
# Inside a sentence, whatever follows.
INSIDE = frozenset(
    "al bzgl bzw cf dgl e.g eg evtl geb gegr gest i.e ie incl inkl insb mind nb ngl resp sog "
    "spp u.a usw vgl viz vs z.b zz zzgl d.h d.i o.ä s.o s.u v.a i.d.r u.u p.ex c.-à-d т.е т.н "
    "напр др.гр лат англ нем фр греч p.e ej núm av avda тзв т.нар тел".split()
)
# At the end of a sentence as often as in it: the next word decides.
OPEN = frozenset(
    "ave blvd bros co corp dept dist div est etc inc jr ltd mfg mt rd ste u.s.a univ esq ph.d "
    "m.d b.a m.a a.m p.m a.d b.c b.c.e c.e d.c u.s u.k u.n e.u n.y l.a г гг в вв р н.э до.н.э и.др "
    "и.т.д т.д т.п".split()
)
# Words that begin a sentence far more often than they follow an abbreviation with a capital.
STARTERS = frozenset(
    "a after all also although among an and another as at because before both but by during each "
    "even every few following for from he her here his how however i if in it its later many more "
    "most no not of on once one only other our she since so some such that the their then there "
    "these they this those though through thus to today under until we what when where whether "
    "which while who with within you "
    "der die das er sie es ein eine im in am nach seit bei mit von zu auf "
    "le la les il elle un une en dans au après depuis ce cette el los las una "
    "он она оно они это в на по с со из после при для как его её их но и а во "
    "той тя те това след през".split()
)
# After a one- or two-digit number with a stop: German ordinals before nouns.
ORDINAL_NOUNS = frozenset(
    "januar jänner februar märz april mai juni juli august september oktober november dezember "
    "jahrhundert jahrhunderts jahrhunderte jahrhunderten jahrtausend jahrtausends tag tages platz "
    "auflage weltkrieg liga klasse lebensjahr lebensjahres armee division infanterie".split()
)
# Words before a full stop that may not end a sentence; all others are numbers or initials.
KNOWN = TITLES | INSIDE | BEFORE_NUMBERS | OPEN
