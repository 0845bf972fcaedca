"""What a picture keeps of the content's date, camera and author, and what it says of how it was made."""

import io
import json
import random
import struct
import warnings
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image, TiffImagePlugin

from nst_lightning.errors import UserError, UserNotice
from nst_lightning.images import read_image, read_metadata, write_image
from nst_lightning.images.metadata import Metadata, without_folders
from nst_lightning.images.origin import read_origin

EVERY = [("jpg", 8), ("png", 8), ("png", 16), ("tif", 8), ("tif", 16), ("webp", 8)]
EVERY += [("avif", 8), ("avif", 10), ("avif", 12), ("jxl", 8), ("jxl", 16)]
SETTINGS = {"Software": "nst_lightning 9", "Configuration": "a: ü 🎨\n", "": "\0\\<&>"}
XMP = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/"
 xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/" xmlns:xmpMM="http://ns.adobe.com/xap/1.0/mm/"
 xmlns:crs="http://ns.adobe.com/camera-raw-settings/1.0/" xmlns:plus="http://ns.useplus.org/ldf/xmp/1.0/"
 photoshop:Credit="Agentur &amp; Söhne" photoshop:City="Genua" xmpMM:DocumentID="private-id" crs:Version="15"
 plus:DataMining="http://ns.useplus.org/ldf/vocab/DMI-PROHIBITED">
<dc:creator><rdf:Seq><rdf:li>Änn Doe</rdf:li></rdf:Seq></dc:creator>
<dc:rights><rdf:Alt><rdf:li xml:lang="x-default">all mine</rdf:li></rdf:Alt></dc:rights>
</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>"""


def photo_exif():
    """EXIF as cameras write it: turned, with a place, maker notes and a serial number."""
    exif = Image.Exif()
    exif.update({270: "Harbour at noon", 271: "Canon", 272: "Canon EOS R6", 274: 6, 306: "2025:06:02 08:00:00"})
    exif.update({305: "Firmware 1.2", 315: "Ann Doe", 33432: "(c) Ann Doe", 282: 300.0, 283: 240.0, 296: 2})
    exif.get_ifd(0x8769).update(
        {
            33434: TiffImagePlugin.IFDRational(1, 250),
            34855: 400,
            36867: "2025:06:01 12:34:56",
            36880: "+02:00",
            37380: TiffImagePlugin.IFDRational(-1, 3),
            37500: b"MAKERNOTE-PRIVATE",
            37510: b"ASCII\0\0\0a comment",
            40961: 65535,
            40962: 120,
            40963: 80,
            41486: 5000.0,
            42033: "SERIAL-PRIVATE",
            42036: "RF 24-70",
        }
    )
    exif.get_ifd(0x8825).update({1: "N", 2: (44.0, 24.0, 30.0), 3: "E", 4: (8.0, 55.0, 12.0)})
    return exif


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.jpg"
    pixels = np.random.default_rng(0).integers(0, 255, (80, 120, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, exif=photo_exif(), xmp=XMP.encode(), dpi=(300, 240))
    return path


@pytest.fixture
def pixels():
    return torch.rand(1, 3, 20, 30, generator=torch.Generator().manual_seed(0))


def tiff_tags(data):
    """Values of all directories of a TIFF, by directory and tag, read by the letter of TIFF 6.0."""
    order = {b"II": "<", b"MM": ">"}[data[:2]]
    sizes = {1: "B", 2: "s", 3: "H", 4: "I", 5: "II", 7: "s", 9: "i", 10: "ii"}

    def directory(offset):
        found = {}
        (count,) = struct.unpack_from(order + "H", data, offset)
        tags = []
        for entry in range(offset + 2, offset + 2 + 12 * count, 12):
            tag, kind, number = struct.unpack_from(order + "HHI", data, entry)
            tags.append(tag)
            form = order + (f"{number}s" if sizes[kind] == "s" else sizes[kind] * number)
            size = struct.calcsize(form)
            place = entry + 8 if size <= 4 else struct.unpack_from(order + "I", data, entry + 8)[0]
            assert place + size <= len(data)
            values = struct.unpack_from(form, data, place)
            found[tag] = values[0] if len(values) == 1 else values
        assert tags == sorted(tags)  # as TIFF demands
        return found, struct.unpack_from(order + "I", data, offset + 2 + 12 * count)[0]

    main, following = directory(struct.unpack_from(order + "I", data, 4)[0])
    assert following == 0  # no thumbnail
    return main, *(directory(main[tag])[0] if tag in main else {} for tag in (34665, 34853))


def boxes(data):
    position = 0
    while position < len(data):
        size, kind = struct.unpack_from(">I4s", data, position)
        yield kind, data[position + 8 : position + size if size else len(data)]
        position += size or len(data)


def chunks(data):
    position = 8
    while position < len(data):
        size, kind = struct.unpack_from(">I4s", data, position)
        content = data[position + 8 : position + 8 + size]
        assert struct.unpack_from(">I", data, position + 8 + size)[0] == zlib.crc32(kind + content)
        yield kind, content
        position += 12 + size


def segments(data):
    position = 2
    while data[position + 1] != 0xDA:
        size = struct.unpack_from(">H", data, position + 2)[0]
        yield data[position + 1], data[position + 4 : position + 2 + size]
        position += 2 + size


def parts(path):
    """EXIF and XMP of a file, found by the letter of its format."""
    data = path.read_bytes()
    if path.suffix == ".jpg":
        found = [content for kind, content in segments(data) if kind == 0xE1]
        exif = next((part[6:] for part in found if part.startswith(b"Exif\0\0")), b"")
        head = b"http://ns.adobe.com/xap/1.0/\0"
        return exif, next((part[len(head) :] for part in found if part.startswith(head)), b"")
    if path.suffix == ".png":
        found = dict(chunks(data))
        texts = [content for kind, content in chunks(data) if kind == b"iTXt"]
        head = b"XML:com.adobe.xmp\0\0\0\0\0"
        return found.get(b"eXIf", b""), next((t[len(head) :] for t in texts if t.startswith(head)), b"")
    if path.suffix == ".webp":
        found, position = {}, 12
        while position < len(data):
            kind, size = struct.unpack_from("<4sI", data, position)
            found[kind] = data[position + 8 : position + 8 + size]
            position += 8 + size + size % 2
        return found.get(b"EXIF", b"").removeprefix(b"Exif\0\0"), found.get(b"XMP ", b"")
    if path.suffix == ".jxl":
        found = dict(boxes(data))
        return found.get(b"Exif", b"")[4:], found.get(b"xml ", b"")
    if path.suffix == ".tif":
        with tifffile.TiffFile(path) as file:
            return data, bytes(file.pages[0].tags.valueof(700, b""))
    with Image.open(path) as image:  # AVIF, by libavif
        return image.info.get("exif", b"").removeprefix(b"Exif\0\0"), image.info.get("xmp", b"")


def text(value):
    return value.rstrip(b"\0").decode()


@pytest.mark.parametrize(("suffix", "bits"), EVERY)
class TestKept:
    def test_date_camera_author_and_resolution(self, tmp_path, photo, pixels, suffix, bits):
        path = tmp_path / f"x.{suffix}"
        write_image(path, pixels, bits=bits, metadata=SETTINGS, origin=read_origin(photo))
        exif, xmp = parts(path)
        main, detail, place = tiff_tags(exif)
        expected = {270: "Harbour at noon", 271: "Canon", 272: "Canon EOS R6", 306: "2025:06:02 08:00:00"}
        expected |= {305: "nst_lightning 9", 315: "Ann Doe", 33432: "(c) Ann Doe"}
        assert {tag: text(main[tag]) for tag in expected} == expected
        assert main.get(274, 1) == 1  # the pixels are upright
        assert [main[282][0] / main[282][1], main[283][0] / main[283][1], main[296]] == [300, 240, 2]
        dates = {36867: "2025:06:01 12:34:56", 36880: "+02:00", 42036: "RF 24-70"}
        assert {tag: text(detail[tag]) for tag in dates} == dates
        assert (detail[33434], detail[34855], detail[37380]) == ((1, 250), 400, (-1, 3))
        assert bytes(detail[37510]) == b"ASCII\0\0\0a comment"
        assert (detail[40961], detail[40962], detail[40963]) == (1, 30, 20)  # sRGB, and the new size
        assert not {37500, 41486, 42033} & set(detail)
        assert place == {}
        said = xmp.decode()
        for kept in ("Änn Doe", "all mine", "Agentur &amp; Söhne", "DMI-PROHIBITED", "photoshop:Credit", "dc:creator"):
            assert kept in said
        for private in ("Genua", "private-id", "crs:"):
            assert private not in said
        assert b"PRIVATE" not in path.read_bytes()
        assert read_metadata(path) == SETTINGS

    def test_place_on_request(self, tmp_path, photo, pixels, suffix, bits):
        path = tmp_path / f"x.{suffix}"
        write_image(path, pixels, bits=bits, origin=read_origin(photo, keep_location=True))
        exif, xmp = parts(path)
        place = tiff_tags(exif)[2]
        assert (text(place[1]), text(place[3])) == ("N", "E")
        assert place[2] == (44, 1, 24, 1, 30, 1)
        assert b"Genua" in xmp

    def test_nothing_is_said_of_a_picture_of_nothing(self, tmp_path, pixels, suffix, bits):
        path = tmp_path / f"x.{suffix}"
        write_image(path, pixels, bits=bits)
        exif, xmp = parts(path)
        assert xmp == b""
        assert exif == b"" or 34665 not in tiff_tags(exif)[0]
        assert read_metadata(path) == {}

    @pytest.mark.parametrize("length", [70_000, 300_000])
    def test_a_long_configuration(self, tmp_path, photo, pixels, suffix, bits, length):
        path = tmp_path / f"x.{suffix}"
        long = {"Configuration": "".join(random.Random(0).choices("abcdefgh \n<ü", k=length))}
        write_image(path, pixels, bits=bits, metadata=long, origin=read_origin(photo))
        assert read_metadata(path) == long
        exif, xmp = parts(path)
        assert text(tiff_tags(exif)[0][315]) == "Ann Doe"
        assert b"all mine" in xmp

    def test_what_cannot_be_written_costs_itself(self, tmp_path, pixels, suffix, bits):
        path = tmp_path / f"x.{suffix}"
        broken = Metadata(main={315: (2, object())}, settings={"a": "b"})
        with pytest.warns(UserNotice, match="written without date, author and settings"):
            write_image(path, pixels, bits=bits, origin=broken, metadata={"Software": "s"})
        write_image(tmp_path / f"y.{suffix}", pixels, bits=bits)
        assert path.read_bytes() == (tmp_path / f"y.{suffix}").read_bytes()

    def test_same_bytes_again(self, tmp_path, photo, pixels, suffix, bits):
        for name in "ab":
            write_image(tmp_path / f"{name}.{suffix}", pixels, bits=bits, metadata=SETTINGS, origin=read_origin(photo))
        assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()


def test_extended_xmp_by_the_letter(tmp_path, pixels):
    """XMP Specification Part 3, 1.1.3.1: a digest names the parts, each says how long the whole is and where it is."""
    import hashlib

    long = {"Configuration": "x" * 200_000}
    write_image(tmp_path / "x.jpg", pixels, metadata=long)
    head = b"http://ns.adobe.com/xmp/extension/\0"
    found = [data for kind, data in segments((tmp_path / "x.jpg").read_bytes()) if kind == 0xE1]
    extension = [data[len(head) :] for data in found if data.startswith(head)]
    assert len(extension) == 4
    whole = bytearray(struct.unpack(">I", extension[0][32:36])[0])
    for part in extension:
        offset = struct.unpack(">I", part[36:40])[0]
        whole[offset : offset + len(part) - 40] = part[40:]
    name = hashlib.md5(whole).hexdigest().upper().encode()
    assert {part[:32] for part in extension} == {name}
    assert name in parts(tmp_path / "x.jpg")[1]
    assert b"x" * 200_000 in whole


class TestReading:
    @pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp", "avif", "jxl", "heic"])
    def test_from_every_kind(self, tmp_path, photo, pixels, suffix):
        """As Pillow writes them, but for JPEG XL, and TIFF, in which it drops the second directory."""
        path = tmp_path / f"other.{suffix}"
        if suffix in ("jxl", "tif"):
            write_image(path, pixels, origin=read_origin(photo))
        else:
            if suffix == "heic":
                pytest.importorskip("pillow_heif").register_heif_opener()
            with Image.open(photo) as image:
                image.save(path, exif=photo_exif(), xmp=XMP.encode(), dpi=(300, 240))
        origin = read_origin(path)
        write_image(tmp_path / "x.jpg", pixels, origin=origin)
        exif, xmp = parts(tmp_path / "x.jpg")
        main, detail, _ = tiff_tags(exif)
        assert (text(main[272]), text(main[315]), text(detail[36867])) == (
            "Canon EOS R6",
            "Ann Doe",
            "2025:06:01 12:34:56",
        )
        assert origin.dpi == pytest.approx((300, 240), rel=1e-4)  # PNG counts whole pixels a metre
        if suffix != "png":  # Pillow writes none there
            assert "Änn Doe".encode() in xmp

    def test_letters_beyond_ascii(self, tmp_path, pixels):
        exif = Image.Exif()
        exif[315] = "Ünal 漢".encode()  # as cameras and exiftool write it
        exif[33432] = "© Ünal".encode("latin-1")
        Image.new("RGB", (9, 9)).save(tmp_path / "photo.jpg", exif=exif)
        write_image(tmp_path / "x.png", pixels, origin=read_origin(tmp_path / "photo.jpg"))
        main = tiff_tags(parts(tmp_path / "x.png")[0])[0]
        assert main[315] == "Ünal 漢\0".encode()
        assert main[33432] == "© Ünal\0".encode("latin-1")

    @pytest.mark.parametrize("kind", ["8", "16", "big"])
    def test_from_tiff(self, tmp_path, pixels, kind):
        path = tmp_path / "photo.tif"
        values = np.zeros((8, 9, 3), np.uint8 if kind == "8" else np.uint16)
        tags = [(315, 2, 0, "Ann Doe", True), (700, 1, len(XMP.encode()), XMP.encode(), True)]
        tifffile.imwrite(
            path,
            values,
            photometric="rgb",
            description="Harbour",
            metadata=None,
            resolution=(118.11, 59.055),
            resolutionunit=3,
            bigtiff=kind == "big",
            extratags=tags,
        )
        origin = read_origin(path)
        write_image(tmp_path / "x.jpg", pixels, origin=origin)
        exif, xmp = parts(tmp_path / "x.jpg")
        main = tiff_tags(exif)[0]
        assert (text(main[270]), text(main[315])) == ("Harbour", "Ann Doe")
        assert main[282][0] / main[282][1] == pytest.approx(300, rel=1e-4)
        assert main[283][0] / main[283][1] == pytest.approx(150, rel=1e-4)
        assert "Änn Doe".encode() in xmp

    @pytest.mark.parametrize("late", [False, True])
    def test_from_png(self, tmp_path, pixels, late):
        """Also behind the pixels, where exiftool puts it."""
        encoded = imagecodecs.png_encode(np.zeros((8, 9, 3), np.uint8))

        def chunk(kind, data):
            return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

        said = chunk(b"eXIf", photo_exif().tobytes()[6:])
        said += chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP.encode())
        said += chunk(b"tEXt", b"Copyright\0\xa9 Ann") + chunk(b"zTXt", b"Title\0\0" + zlib.compress(b"Harbour"))
        said += chunk(b"tEXt", b"parameters\0a prompt")
        at = len(encoded) - 12 if late else 33
        path = tmp_path / "photo.png"
        dots = chunk(b"pHYs", struct.pack(">IIB", 11811, 11811, 1))
        path.write_bytes(encoded[:33] + dots + encoded[33:at] + said + encoded[at:])
        origin = read_origin(path)
        write_image(tmp_path / "x.png", pixels, origin=origin)
        exif, xmp = parts(tmp_path / "x.png")
        assert text(tiff_tags(exif)[0][272]) == "Canon EOS R6"
        assert "Änn Doe".encode() in xmp
        with Image.open(tmp_path / "x.png") as image:
            assert image.info["Copyright"] == "© Ann"
            assert (image.info["Title"], image.info["Author"]) == ("Harbour", "Ann Doe")
            assert image.info["dpi"] == pytest.approx((300, 300), rel=1e-3)
            assert "parameters" not in image.info
        write_image(tmp_path / "x.jpg", pixels, origin=origin)
        with Image.open(tmp_path / "x.jpg") as image:
            assert image.info["dpi"] == (300, 300)

    def test_from_iptc(self, tmp_path, pixels):
        def record(number, value):
            return b"\x1c\x02" + bytes([number]) + struct.pack(">H", len(value)) + value

        words = record(80, "Änn".encode("latin-1")) + record(25, b"sea") + record(25, b"boat") + record(55, b"20250601")
        resource = b"8BIM\x04\x04\0\0" + struct.pack(">I", len(words)) + words + b"\0" * (len(words) % 2)
        data = b"Photoshop 3.0\0" + resource
        segment = b"\xff\xed" + struct.pack(">H", len(data) + 2) + data
        Image.new("RGB", (9, 9)).save(tmp_path / "photo.jpg", extra=segment)
        write_image(tmp_path / "x.png", pixels, origin=read_origin(tmp_path / "photo.jpg"))
        said = parts(tmp_path / "x.png")[1].decode()
        assert "<dc:creator><rdf:Seq><rdf:li>Änn</rdf:li></rdf:Seq></dc:creator>" in said
        assert "<rdf:li>sea</rdf:li><rdf:li>boat</rdf:li>" in said
        assert "<photoshop:DateCreated>2025-06-01</photoshop:DateCreated>" in said

    @pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
    def test_settings_of_older_versions(self, tmp_path, pixels, suffix):
        """They stood in the description, with all paths; that is read, and never taken for a caption."""
        path = tmp_path / f"old.{suffix}"
        old = {"Software": "nst_lightning 0.1.0", "Content": "/home/ann/private.jpg"}
        if suffix == "png":
            from PIL.PngImagePlugin import PngInfo

            info = PngInfo()
            info.add_text("Description", json.dumps(old))
            Image.new("RGB", (9, 9)).save(path, pnginfo=info)
        else:
            exif = Image.Exif()
            exif[270] = json.dumps(old)
            Image.new("RGB", (9, 9)).save(path, exif=exif)
        assert read_metadata(path) == old
        write_image(tmp_path / "x.png", pixels, origin=read_origin(path), metadata={"Software": "nst_lightning 9"})
        assert b"private" not in (tmp_path / "x.png").read_bytes()

    def test_settings_are_not_inherited(self, tmp_path, pixels):
        write_image(tmp_path / "first.jpg", pixels, metadata={"Software": "nst_lightning 9", "Content": "secret"})
        origin = read_origin(tmp_path / "first.jpg")
        write_image(tmp_path / "second.jpg", pixels, metadata={"Software": "nst_lightning 9"}, origin=origin)
        assert read_metadata(tmp_path / "second.jpg") == {"Software": "nst_lightning 9"}
        assert b"secret" not in (tmp_path / "second.jpg").read_bytes()

    @pytest.mark.parametrize(
        "packet", [b"", b"<x", b"<!DOCTYPE x [<!ENTITY a 'b'>]><x>&a;</x>", b"\xff\xfe", XMP.encode()[:500]]
    )
    def test_xmp_that_is_none(self, tmp_path, pixels, packet):
        Image.new("RGB", (9, 9)).save(tmp_path / "photo.jpg", xmp=packet, exif=photo_exif())
        write_image(tmp_path / "x.jpg", pixels, origin=read_origin(tmp_path / "photo.jpg"))
        exif, xmp = parts(tmp_path / "x.jpg")
        assert xmp == b""
        assert text(tiff_tags(exif)[0][315]) == "Ann Doe"

    def test_damaged_exif_costs_itself(self, tmp_path, pixels):
        sound = photo_exif().tobytes()
        origins = []
        for seed in range(40):
            generator = random.Random(seed)
            damaged = bytearray(sound)
            for _ in range(4):
                damaged[generator.randrange(14, len(damaged))] = generator.randrange(256)
            Image.new("RGB", (9, 9)).save(tmp_path / "photo.jpg", exif=bytes(damaged), dpi=(300, 300))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserNotice)
                origins.append(read_origin(tmp_path / "photo.jpg"))
                write_image(tmp_path / "x.jpg", pixels, origin=origins[-1], metadata=SETTINGS)
            assert read_image(tmp_path / "x.jpg").width == 30
        assert sum(origin.main.get(271) is not None for origin in origins) > 20  # most of it survives mostly

    def test_an_unreadable_file_is_a_notice(self, tmp_path):
        with pytest.warns(UserNotice, match="date, author and so on are not kept: data.content: .* does not exist"):
            assert read_origin(tmp_path / "photo.jpg") == Metadata()

    def test_long_values_give_way_to_the_limit_of_jpeg(self, tmp_path, pixels):
        origin = Metadata(main={270: (2, b"c" * 16_000), 315: (2, b"Ann"), 40092: (1, b"w" * 15_000)})
        origin.exif = {37510: (7, b"u" * 16_000), 42036: (2, b"l" * 16_000), 42032: (2, b"o" * 15_000)}
        with pytest.warns(UserNotice, match="the content's EXIF tag .* is too long here, and left out"):
            write_image(tmp_path / "x.jpg", pixels, origin=origin, metadata=SETTINGS)
        main, detail, _ = tiff_tags(parts(tmp_path / "x.jpg")[0])
        assert main[315] == b"Ann\0"
        assert len(set(main) & {270, 40092} | set(detail) & {37510, 42036, 42032}) == 4
        assert read_metadata(tmp_path / "x.jpg") == SETTINGS


class TestWithoutFolders:
    def test_names_only(self):
        before = {
            "data": {
                "content": "/home/ann/photo.jpg",
                "style": [{"path": "~/styles/monet", "mask": None}, r"C:\Users\ann\x.png"],
                "init": "content",
            },
            "model": {
                "extractor": {"class_path": "nst_lightning.features.VGG19", "init_args": {"weights": "/w/vgg.pth"}}
            },
            "trainer": {
                "default_root_dir": "ann_private",
                "logger": {"init_args": {"save_dir": "/home/ann"}},
                "callbacks": [{"init_args": {"anything": "/home/ann", "other": "~"}}],
                "precision": "16-mixed",
            },
            "fallback": "there",
            "output": "/home/ann/out.png",
            "bits": 8,
        }
        assert without_folders(before) == {
            "data": {
                "content": "photo.jpg",
                "style": [{"path": "monet", "mask": None}, "x.png"],
                "init": "content",
            },
            "model": {"extractor": {"class_path": "nst_lightning.features.VGG19", "init_args": {"weights": "vgg.pth"}}},
            "trainer": {
                "default_root_dir": None,
                "logger": {"init_args": {"save_dir": None}},
                "callbacks": [{"init_args": {"anything": "", "other": ""}}],
                "precision": "16-mixed",
            },
            "fallback": None,
            "output": "out.png",
            "bits": 8,
        }


def test_read_metadata_of_no_picture(tmp_path):
    (Path(tmp_path) / "x.jpg").write_bytes(b"")
    with pytest.raises(UserError, match="the file is empty"):
        read_metadata(tmp_path / "x.jpg")
    (Path(tmp_path) / "x.avif").write_bytes(io.BytesIO(b"\0\0\0\x20ftypavif").getvalue())
    with pytest.raises(UserError, match=r"image: needs a JPEG, .* got .*x\.avif.*, which is none"):
        read_metadata(tmp_path / "x.avif")
