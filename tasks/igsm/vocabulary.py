"""Worlds of iGSM problems: four categories from coarse to fine, each with kinds of four names.

A name belongs to one category of one world, so a text tells the structure of its problem. Names are letters, hyphens
and spaces; none holds an apostrophe, a comma or a word of the sentences they stand in (a test checks all of this).
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Category:
    """A category of things, and its names by kind; a problem takes the names of one kind."""

    name: str
    kinds: tuple[tuple[str, ...], ...]


def _category(name: str, *kinds: str) -> Category:
    return Category(name, tuple(tuple(kind.split(", ")) for kind in kinds))


BRIEF = "brief"  # names of one word, so that texts are shorter and a name is one token
WORLDS: dict[str, tuple[Category, ...]] = {
    "trade": (
        _category(
            "Harbour",
            "Lantern Bay, Gull Point, Amber Cove, Saltmarsh Quay",
            "Northern Basin, Southern Basin, Eastern Basin, Western Basin",
            "Palm Landing, Coral Landing, Mango Landing, Turtle Landing",
            "Icebreaker Dock, Whaler Dock, Glacier Dock, Polar Dock",
            "River Mouth, Old Lagoon, Stone Jetty, Fishing Pier",
        ),
        _category(
            "Ship",
            "Schooner, Brigantine, Clipper, Frigate",
            "Oil Tanker, Bulk Carrier, Container Vessel, Car Ferry",
            "Rowing Boat, Canoe, Kayak, Raft",
            "Trawler, Whaleboat, Shrimp Boat, Oyster Boat",
            "Paddle Steamer, Tugboat, River Barge, Houseboat",
        ),
        _category(
            "Crate",
            "Oak Crate, Pine Crate, Cedar Crate, Birch Crate",
            "Red Barrel, Blue Barrel, Green Barrel, Yellow Barrel",
            "Jute Sack, Linen Sack, Cotton Sack, Hemp Sack",
            "Steel Drum, Copper Drum, Tin Drum, Brass Drum",
            "Wicker Hamper, Willow Hamper, Rattan Hamper, Bamboo Hamper",
        ),
        _category(
            "Fruit",
            "Apple, Pear, Quince, Plum",
            "Banana, Mango, Papaya, Guava",
            "Orange, Lemon, Lime, Grapefruit",
            "Strawberry, Blueberry, Raspberry, Gooseberry",
            "Watermelon, Cantaloupe, Pumpkin, Honeydew",
        ),
    ),
    "music": (
        _category(
            "Festival",
            "Midsummer Gala, Harvest Fair, Spring Parade, Winter Carnival",
            "Jazz Week, Opera Week, Folk Week, Blues Week",
            "Mountain Concert, Lakeside Concert, Desert Concert, Forest Concert",
            "Lyon Biennale, Porto Biennale, Turin Biennale, Ghent Biennale",
            "Sunrise Meeting, Noon Meeting, Dusk Meeting, Midnight Meeting",
        ),
        _category(
            "Stage",
            "Main Stage, Side Stage, Garden Stage, Floating Stage",
            "Marble Hall, Velvet Hall, Crystal Hall, Mirror Hall",
            "Circus Tent, Silk Tent, Canvas Tent, Striped Tent",
            "Rooftop Terrace, Vineyard Terrace, Castle Terrace, Harbourside Terrace",
            "Chapel Nave, Abbey Nave, Temple Court, Cloister Yard",
        ),
        _category(
            "Ensemble",
            "String Quartet, Brass Quintet, Piano Trio, Wind Octet",
            "Marching Band, Swing Band, Garage Band, Wedding Band",
            "Gospel Choir, Chamber Choir, Youth Choir, Monastery Choir",
            "Court Orchestra, Radio Orchestra, Film Orchestra, Student Orchestra",
            "Drum Circle, Flute Circle, Harp Circle, Gong Circle",
        ),
        _category(
            "Instrument",
            "Violin, Viola, Cello, Double Bass",
            "Trumpet, Trombone, Tuba, French Horn",
            "Flute, Clarinet, Oboe, Bassoon",
            "Guitar, Banjo, Mandolin, Ukulele",
            "Snare Drum, Tambourine, Xylophone, Triangle",
        ),
    ),
    "sky": (
        _category(
            "Galaxy",
            "Spindle Galaxy, Pinwheel Galaxy, Sombrero Galaxy, Whirlpool Galaxy",
            "Heron Nebula, Raven Nebula, Falcon Nebula, Osprey Nebula",
            "Silver Spiral, Golden Spiral, Scarlet Spiral, Violet Spiral",
            "Inner Cluster, Outer Cluster, Upper Cluster, Lower Cluster",
            "Quiet Expanse, Frozen Expanse, Burning Expanse, Drifting Expanse",
        ),
        _category(
            "Star",
            "Red Dwarf, White Dwarf, Brown Dwarf, Black Dwarf",
            "Blue Giant, Orange Giant, Yellow Giant, Pale Giant",
            "Fast Pulsar, Slow Pulsar, Bright Pulsar, Faint Pulsar",
            "Amber Sun, Ivory Sun, Copper Sun, Jade Sun",
            "Wolf Star, Bear Star, Fox Star, Lynx Star",
        ),
        _category(
            "Planet",
            "Ocean World, Desert World, Jungle World, Tundra World",
            "Gas Colossus, Ice Colossus, Lava Colossus, Storm Colossus",
            "Ringed Sphere, Cratered Sphere, Cloudy Sphere, Rocky Sphere",
            "Twin Moon, Lost Moon, Hollow Moon, Wandering Moon",
            "Home Colony, Miner Colony, Farmer Colony, Pilot Colony",
        ),
        _category(
            "Gem",
            "Ruby, Sapphire, Emerald, Topaz",
            "Opal, Pearl, Amethyst, Garnet",
            "Quartz, Obsidian, Malachite, Turquoise",
            "Diamond, Zircon, Spinel, Beryl",
            "Agate, Jasper, Onyx, Moonstone",
        ),
    ),
    "study": (
        _category(
            "Library",
            "City Library, Village Library, Abbey Library, Palace Library",
            "Maple Archive, Elm Archive, Linden Archive, Chestnut Archive",
            "Riverside Reading Room, Hilltop Reading Room, Seaside Reading Room, Parkside Reading Room",
            "Law Institute, Botany Institute, History Institute, Music Institute",
            "Old Tower, New Tower, Round Tower, Crooked Tower",
        ),
        _category(
            "Cabinet",
            "Walnut Cabinet, Ebony Cabinet, Mahogany Cabinet, Teak Cabinet",
            "Glass Bookcase, Iron Bookcase, Folding Bookcase, Rolling Bookcase",
            "Left Alcove, Right Alcove, Upper Alcove, Lower Alcove",
            "Map Chest, Letter Chest, Coin Chest, Stamp Chest",
            "Attic Shelf, Cellar Shelf, Hallway Shelf, Window Shelf",
        ),
        _category(
            "Volume",
            "Atlas, Almanac, Dictionary, Encyclopedia",
            "Sea Novel, Crime Novel, Ghost Novel, Travel Novel",
            "Algebra Reader, Geometry Reader, Physics Reader, Chemistry Reader",
            "Herbal, Bestiary, Cookbook, Songbook",
            "Leather Diary, Paper Diary, Pocket Diary, Locked Diary",
        ),
        _category(
            "Insert",
            "Bookmark, Postcard, Photograph, Newspaper Clipping",
            "Pressed Rose, Pressed Fern, Pressed Clover, Pressed Daisy",
            "Pencil Sketch, Ink Sketch, Charcoal Sketch, Chalk Sketch",
            "Train Ticket, Theatre Ticket, Museum Ticket, Ferry Ticket",
            "Red Ribbon, Blue Ribbon, Green Ribbon, Grey Ribbon",
        ),
    ),
    "farm": (
        _category(
            "Valley",
            "Willow Valley, Heather Valley, Juniper Valley, Thistle Valley",
            "Windy Plain, Sunny Plain, Misty Plain, Stony Plain",
            "Upper Meadow, Lower Meadow, Hidden Meadow, Flooded Meadow",
            "Baker Estate, Miller Estate, Weaver Estate, Potter Estate",
            "First Terrace, Second Terrace, Third Terrace, Fourth Terrace",
        ),
        _category(
            "Barn",
            "Thatched Barn, Brick Barn, Timber Barn, Slate Barn",
            "Goat Stable, Horse Stable, Donkey Stable, Mule Stable",
            "Lambing Shed, Milking Shed, Shearing Shed, Threshing Shed",
            "Corn Silo, Wheat Silo, Barley Silo, Rye Silo",
            "Rose Greenhouse, Tomato Greenhouse, Orchid Greenhouse, Cactus Greenhouse",
        ),
        _category(
            "Animal",
            "Goose, Duck, Turkey, Rooster",
            "Mare, Stallion, Pony, Foal",
            "Sheepdog, Terrier, Beagle, Spaniel",
            "Dairy Cow, Ox, Buffalo, Yak",
            "Merino Sheep, Mountain Goat, Alpaca, Llama",
        ),
        _category(
            "Ornament",
            "Silver Bell, Copper Bell, Wooden Bell, Clay Bell",
            "Leather Collar, Woven Collar, Beaded Collar, Plain Collar",
            "Left Ear Tag, Right Ear Tag, Square Ear Tag, Oval Ear Tag",
            "Daisy Wreath, Ivy Wreath, Laurel Wreath, Poppy Wreath",
            "Striped Blanket, Checked Blanket, Dotted Blanket, Quilted Blanket",
        ),
    ),
    BRIEF: (
        _category("Island", "Mull, Skye, Jura, Bute", "Capri, Elba, Malta, Naxos"),
        _category("Camp", "Alpha, Bravo, Delta, Echo", "Kilo, Lima, Oscar, Tango"),
        _category("Cabin", "Badger, Otter, Marten, Stoat", "Finch, Robin, Wren, Siskin"),
        _category("Tool", "Axe, Hoe, Rake, Saw", "Chisel, Hammer, Spanner, Trowel"),
    ),
}
ANY = "any"
DRAWN = tuple(world for world in WORLDS if world != BRIEF)
"""What "any" draws from, one world a problem."""


@dataclass(frozen=True)
class Place:
    """Where a name stands: its world, and the position of its category there, 0 the coarsest."""

    world: str
    depth: int


def name_places() -> dict[str, Place]:
    """Every name of a thing -> its place."""
    return {
        name: Place(world, depth)
        for world, categories in WORLDS.items()
        for depth, category in enumerate(categories)
        for kind in category.kinds
        for name in kind
    }


def category_places() -> dict[str, Place]:
    """Every name of a category -> its place."""
    return {
        category.name: Place(world, depth)
        for world, categories in WORLDS.items()
        for depth, category in enumerate(categories)
    }
