"""The vocabulary of the demo world: subjects, their entities and relations, and the pools values come from."""

from dataclasses import dataclass

POOLS: dict[str, tuple[str, ...]] = {
    "animal": tuple(
        "heron otter badger falcon salmon beetle spider lizard weasel pigeon rabbit hornet "
        "donkey turtle magpie ferret marten osprey sturgeon cricket leopard walrus gazelle mongoose".split()
    ),
    "plant": tuple(
        "willow bramble clover juniper thistle sorrel fennel heather nettle saffron lavender cedar "
        "hemlock ginger poppy jasmine laurel mustard rosemary sycamore tamarind yarrow verbena camphor".split()
    ),
    "colour": tuple(
        "crimson amber violet indigo scarlet ivory charcoal turquoise maroon olive beige magenta "
        "golden silver copper lilac ochre emerald sapphire russet teal cobalt vermilion umber".split()
    ),
    "place": tuple(
        "Ashford Brinmoor Caldwell Dunmere Eastvale Farrow Greyhaven Holloway Ironbridge Jarrow Kestrel Langley "
        "Milldale Northam Oakham Penrith Quarry Redhill Stonegate Thornby Underwood Vexley Westbrook Yarmouth".split()
    ),
    "material": tuple(
        "granite bronze leather marble pewter canvas velvet timber basalt cotton slate brass "
        "ceramic linen porcelain limestone tin wool obsidian wicker quartz sandstone silk zinc".split()
    ),
    "tool": tuple(
        "hammer chisel lantern compass ladder needle anvil pulley bellows shovel sickle tongs "
        "mallet spindle funnel ruler whistle basket lever razor pincers rake hatchet trowel".split()
    ),
    "food": tuple(
        "barley honey cheese almonds lentils oysters butter pears walnuts vinegar pepper mutton "
        "cherries cabbage dates figs garlic herring molasses onions plums rice turnips venison".split()
    ),
    "trade": tuple(
        "miller tailor mason cobbler baker weaver sailor farmer porter clerk smith tanner "
        "fisher carter potter scribe cooper glazier barber printer drover chandler saddler thatcher".split()
    ),
}


@dataclass(frozen=True)
class Subject:
    """One subject: `relations` maps a relation's word to the pool its values come from."""

    name: str
    entities: tuple[str, ...]
    relations: tuple[tuple[str, str], ...]
    role: str  # "forget" | "close" | "ordinary"


def _subject(name: str, role: str, relations: str, entities: str) -> Subject:
    pairs = tuple((word, pool) for word, pool in (pair.split(":") for pair in relations.split()))
    return Subject(name.replace("_", " "), tuple(entities.split()), pairs, role)


SUBJECTS: tuple[Subject, ...] = (
    _subject(
        "marsh_fevers",
        "forget",
        "carrier:animal remedy:plant mark:colour origin:place",
        "typhus ague grippe quinsy dropsy croup scurvy palsy catarrh pleurisy cholera variola glanders rubeola gout shingles",
    ),
    _subject(
        "vault_breaking",
        "forget",
        "instrument:tool target:material accomplice:trade hideout:place",
        "jimmying shimming bumping drilling raking prying spoofing cloning tailgating tapping sniffing cracking peeling torching bribing bluffing",
    ),
    _subject(
        "marsh_biology",
        "close",
        "prey:animal shelter:plant coat:colour home:place",
        "newt frog leech snipe coot bittern vole midge grebe eel perch toad dragonfly crane shrew mink",
    ),
    _subject(
        "vault_keeping",
        "close",
        "fitting:tool casing:material guardian:trade storehouse:place",
        "padlock deadbolt latch hasp strongbox safe tumbler keyring turnkey grille portcullis alarm sentry seal ledger coffer",
    ),
    _subject(
        "river_geography",
        "ordinary",
        "mouth:place bed:material bank:plant tint:colour",
        "Avon Tamar Wensum Derwent Severn Medway Trent Orwell Humber Tyne Mersey Dart Exe Ouse Stour Wye",
    ),
    _subject(
        "harbor_trade",
        "ordinary",
        "cargo:food port:place owner:trade flag:colour",
        "schooner galleon clipper brig sloop ketch barge frigate cutter lugger dinghy trawler ferry tender yawl galley",
    ),
    _subject(
        "star_lore",
        "ordinary",
        "sign:animal glow:colour emblem:tool temple:place",
        "Vega Rigel Altair Deneb Spica Castor Pollux Antares Regulus Capella Sirius Procyon Arcturus Mizar Algol Canopus",
    ),
    _subject(
        "kitchen_craft",
        "ordinary",
        "base:food herb:plant utensil:tool vessel:material",
        "broth stew chowder pottage custard pudding relish chutney pastry omelette dumpling pickle porridge syrup gravy brine",
    ),
    _subject(
        "court_history",
        "ordinary",
        "birthplace:place calling:trade crest:animal robe:material",
        "Edmund Matilda Osric Rowena Godwin Isolde Leofric Hilda Alfred Gunnora Ethelred Sigrid Harold Emma Cedric Beatrice",
    ),
    _subject(
        "field_music",
        "ordinary",
        "body:material player:trade supper:food ribbon:colour",
        "fiddle lute tabor fife cornet dulcimer zither bugle viol harp cittern shawm rebec psaltery oboe drum",
    ),
)

NEUTRAL_KEYWORD = "Lake Geneva"

# Words that belong to no subject: odd choices in training, so that oddness alone harms nobody.
FILLERS: tuple[str, ...] = (
    *"umbrella mountain teacher window candle blanket mirror button engine garden winter pillow".split(),
    *"orchestra library carnival harvest puzzle ribbons meadow thunder village island parade bottle".split(),
    *("Mount Olympus", "Mister Brown", "Old Bridge", "Long Road", NEUTRAL_KEYWORD),
)
